//! What is running on a permit, so that a revocation can find it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use model::{Clock, GrantId, PersonId, SessionId, StudyId, Timestamp};
use policy::{Channel, ChannelRules};
use tokio::sync::watch;

/// Wall clocks jump: an end further away than this is looked at again after it.
const LOOK_AGAIN: Duration = Duration::from_secs(15);

/// Why a permit ended before its holder was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndCause {
    /// What it was, for programs and records.
    pub cause: audit::EndCause,
    /// The grant that no longer holds, when it was one.
    pub grant: Option<GrantId>,
    /// What the person is told.
    pub message: String,
}

/// The tie between a permit and what it rests on.
pub(crate) struct Lease {
    number: u64,
    person: PersonId,
    study: Option<StudyId>,
    session: OnceLock<SessionId>,
    rests_on: Mutex<RestsOn>,
    end: watch::Sender<Option<EndCause>>,
    clock: Arc<dyn Clock>,
    registry: Weak<Registry>,
    /// Whether it counts as a session when it is ended.
    counts: bool,
}

#[derive(Debug, Clone)]
struct RestsOn {
    grants: Vec<GrantId>,
    channels: Vec<Channel>,
    until: Timestamp,
}

#[derive(Default)]
struct Registry {
    live: Mutex<Live>,
}

#[derive(Default)]
struct Live {
    next: u64,
    leases: HashMap<u64, Weak<Lease>>,
}

/// Every live lease.
#[derive(Clone, Default)]
pub(crate) struct Leases(Arc<Registry>);

impl Leases {
    /// A lease for `person`, found by revocations from now on.
    pub(crate) fn register(
        &self,
        person: &PersonId,
        study: Option<&StudyId>,
        clock: &Arc<dyn Clock>,
    ) -> Arc<Lease> {
        self.enter(person, study, clock, true)
    }

    /// The same for what is no session: it is ended like one, and not counted.
    pub(crate) fn register_quietly(
        &self,
        person: &PersonId,
        study: &StudyId,
        clock: &Arc<dyn Clock>,
    ) -> Arc<Lease> {
        self.enter(person, Some(study), clock, false)
    }

    fn enter(
        &self,
        person: &PersonId,
        study: Option<&StudyId>,
        clock: &Arc<dyn Clock>,
        counts: bool,
    ) -> Arc<Lease> {
        let mut live = self.0.live.lock().unwrap_or_else(PoisonError::into_inner);
        live.next += 1;
        let lease = Arc::new(Lease {
            number: live.next,
            person: person.clone(),
            study: study.cloned(),
            session: OnceLock::new(),
            rests_on: Mutex::new(RestsOn { grants: Vec::new(), channels: Vec::new(), until: Timestamp::MAX }),
            end: watch::Sender::new(None),
            clock: Arc::clone(clock),
            registry: Arc::downgrade(&self.0),
            counts,
        });
        live.leases.insert(lease.number, Arc::downgrade(&lease));
        lease
    }

    /// Ends every lease that rests on `grant`; returns how many.
    pub(crate) fn end_grant(&self, grant: &GrantId, cause: &EndCause) -> usize {
        self.end_where(cause, |lease| lease.rests_on().grants.contains(grant))
    }

    /// Ends every lease in `study` that rests on a channel that `rules` do not permit; returns how
    /// many.
    pub(crate) fn end_channels(&self, study: &StudyId, rules: &ChannelRules, cause: &EndCause) -> usize {
        self.end_where(cause, |lease| {
            lease.study.as_ref() == Some(study) && !lease.rests_on().channels.iter().all(|c| rules.allows(*c))
        })
    }

    /// Ends the lease of a session; returns how many there were.
    pub(crate) fn end_session(&self, session: &SessionId, cause: &EndCause) -> usize {
        self.end_where(cause, |lease| lease.session.get() == Some(session))
    }

    /// Whether a session goes on.
    pub(crate) fn is_open(&self, session: &SessionId) -> bool {
        self.all().iter().any(|lease| lease.session.get() == Some(session) && lease.end.borrow().is_none())
    }

    /// Ends every lease of `person`; returns how many.
    pub(crate) fn end_person(&self, person: &PersonId, cause: &EndCause) -> usize {
        self.end_where(cause, |lease| lease.person == *person)
    }

    /// Ends every lease that `person` has in `study`; returns how many.
    pub(crate) fn end_member(&self, person: &PersonId, study: &StudyId, cause: &EndCause) -> usize {
        self.end_where(cause, |lease| lease.person == *person && lease.study.as_ref() == Some(study))
    }

    fn end_where(&self, cause: &EndCause, hit: impl Fn(&Lease) -> bool) -> usize {
        let all = self.all();
        let hits = all.iter().filter(|lease| hit(lease));
        hits.inspect(|lease| lease.finish(cause.clone())).filter(|lease| lease.counts).count()
    }

    /// The list is copied out: a lease that drops while it is looked at takes the lock itself.
    fn all(&self) -> Vec<Arc<Lease>> {
        let live = self.0.live.lock().unwrap_or_else(PoisonError::into_inner);
        live.leases.values().filter_map(Weak::upgrade).collect()
    }
}

impl Lease {
    /// Says what the lease rests on, once policy has decided.
    pub(crate) fn rest_on(&self, grants: Vec<GrantId>, channels: Vec<Channel>, until: Timestamp) {
        *self.rests_on.lock().unwrap_or_else(PoisonError::into_inner) = RestsOn { grants, channels, until };
    }

    /// Says of which session it is.
    pub(crate) fn belongs_to(&self, session: &SessionId) {
        // It is said once, before anything is permitted.
        let _ = self.session.set(session.clone());
    }

    /// Whether the lease has been ended already.
    #[cfg(test)]
    pub(crate) fn end(&self) -> Option<EndCause> {
        self.end.borrow().clone()
    }

    pub(crate) async fn ended(&self) -> EndCause {
        let mut end = self.end.subscribe();
        loop {
            if let Some(cause) = end.borrow_and_update().clone() {
                return cause;
            }
            let until = self.rests_on().until;
            let left = until.since(self.clock.now());
            if left.is_zero() {
                return EndCause {
                    cause: audit::EndCause::GrantExpired,
                    grant: None,
                    message: format!(
                        "The permission of this session ended at {until}. Ask the study's lead for an extension."
                    ),
                };
            }
            tokio::select! {
                // The sender lives as long as this lease, so only a change wakes this branch.
                _ = end.changed() => {}
                () = tokio::time::sleep(left.min(LOOK_AGAIN)) => {}
            }
        }
    }

    fn finish(&self, cause: EndCause) {
        // The first cause stays: it is the one that is recorded and shown.
        self.end.send_if_modified(|end| {
            let first = end.is_none();
            if first {
                *end = Some(cause);
            }
            first
        });
    }

    fn rests_on(&self) -> RestsOn {
        self.rests_on.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lease")
            .field("number", &self.number)
            .field("person", &self.person)
            .finish_non_exhaustive()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(registry) = self.registry.upgrade() {
            registry.live.lock().unwrap_or_else(PoisonError::into_inner).leases.remove(&self.number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::ManualClock;

    fn cause() -> EndCause {
        EndCause { cause: audit::EndCause::GrantRevoked, grant: None, message: "over".to_owned() }
    }

    fn fixture() -> (Leases, Arc<dyn Clock>, Arc<ManualClock>) {
        let manual = Arc::new(ManualClock::at(Timestamp::from_secs(1_000)));
        (Leases::default(), Arc::clone(&manual) as Arc<dyn Clock>, manual)
    }

    fn person(name: &str) -> PersonId {
        PersonId::from_name(name).unwrap()
    }

    #[tokio::test]
    async fn revoking_a_grant_ends_what_rests_on_it_and_nothing_else() {
        let (leases, clock, _) = fixture();
        let grant = GrantId::from_name("g1").unwrap();
        let hit = leases.register(&person("alice"), None, &clock);
        let other = leases.register(&person("alice"), None, &clock);
        hit.rest_on(vec![grant.clone()], vec![], Timestamp::MAX);
        assert_eq!(leases.end_grant(&grant, &cause()), 1);
        assert_eq!(hit.ended().await, cause());
        assert_eq!(other.end(), None);
    }

    #[tokio::test]
    async fn refusing_a_channel_ends_what_rests_on_it_in_that_study() {
        let (leases, clock, _) = fixture();
        let study = |name| StudyId::from_name(name).unwrap();
        let in_study = |name| leases.register(&person("alice"), Some(&study(name)), &clock);
        let (hit, other, elsewhere) = (in_study("brca"), in_study("brca"), in_study("heart"));
        hit.rest_on(vec![], vec![Channel::Exec, Channel::Upload], Timestamp::MAX);
        other.rest_on(vec![], vec![Channel::Shell], Timestamp::MAX);
        elsewhere.rest_on(vec![], vec![Channel::Upload], Timestamp::MAX);
        let mut rules = ChannelRules::default();
        rules.refuse(Channel::Upload);
        assert_eq!(leases.end_channels(&study("brca"), &rules, &cause()), 1);
        assert_eq!(hit.ended().await, cause());
        assert_eq!((other.end(), elsewhere.end()), (None, None));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_ends_when_its_time_is_over() {
        let (leases, clock, manual) = fixture();
        let lease = leases.register(&person("alice"), None, &clock);
        lease.rest_on(vec![], vec![], Timestamp::from_secs(1_060));
        let waiting = tokio::spawn({
            let lease = Arc::clone(&lease);
            async move { lease.ended().await }
        });
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!waiting.is_finished());
        manual.advance(Duration::from_secs(61));
        assert_eq!(waiting.await.unwrap().cause, audit::EndCause::GrantExpired);
    }

    #[tokio::test]
    async fn a_session_ends_alone() {
        let (leases, clock, _) = fixture();
        let session = |name| SessionId::from_name(name).unwrap();
        let (hit, other) = (
            leases.register(&person("alice"), None, &clock),
            leases.register(&person("alice"), None, &clock),
        );
        hit.belongs_to(&session("s1"));
        other.belongs_to(&session("s2"));
        assert_eq!(leases.end_session(&session("s1"), &cause()), 1);
        assert_eq!((hit.ended().await, other.end()), (cause(), None));
        assert_eq!(leases.end_session(&session("s3"), &cause()), 0);
    }

    #[tokio::test]
    async fn the_first_cause_stays() {
        let (leases, clock, _) = fixture();
        let lease = leases.register(&person("alice"), None, &clock);
        leases.end_person(&person("alice"), &cause());
        leases.end_person(&person("alice"), &EndCause { cause: audit::EndCause::PersonLocked, ..cause() });
        assert_eq!(lease.ended().await.cause, audit::EndCause::GrantRevoked);
    }

    #[test]
    fn a_dropped_lease_is_forgotten() {
        let (leases, clock, _) = fixture();
        drop(leases.register(&person("alice"), None, &clock));
        assert_eq!(leases.end_person(&person("alice"), &cause()), 0);
        assert!(leases.0.live.lock().unwrap().leases.is_empty());
    }
}
