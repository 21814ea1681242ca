use model::{DatasetId, GrantId, RoleId, Timestamp};

use crate::authorisation::{PROGRAMME, STUDY, matrix};
use crate::channel::Channel;
use crate::denial::Denial;
use crate::disease::Diseases;
use crate::duo::{self, Purpose, Verdict};
use crate::request::{Action, Facts, Request, Standing, StudyFacts};
use crate::rules::{GrantRule, RuleId};
use crate::set::{DUO_PERMITTED, PolicySet, StudyRules};

/// The answer to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Yes, on this basis.
    Permit(Basis),
    /// No.
    Deny(Denial),
    /// Not by a machine: until people have judged it, no.
    Manual(Denial),
}

/// What a permit rests on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Basis {
    /// The rules that matched, each once, in order.
    pub rules: Vec<RuleId>,
    /// The grants among them.
    pub grants: Vec<GrantId>,
    /// What whoever acts on the permit must see to.
    pub obligations: Vec<Obligation>,
}

/// A duty that comes with a permit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Obligation {
    /// What was permitted must have ended at this instant.
    EndBy(Timestamp),
}

impl Basis {
    /// The instant at which what was permitted must have ended; `Timestamp::MAX` if nothing ends it.
    pub fn until(&self) -> Timestamp {
        let ends = self.obligations.iter().map(|Obligation::EndBy(at)| *at);
        ends.min().unwrap_or(Timestamp::MAX)
    }
}

/// Decides one request. Pure: the same arguments give the same answer, and nothing else is asked.
///
/// A permit takes two evaluations that agree: the Casbin enforcer's, and our own walk over the same
/// rules, which also names those that matched. If they differ, or either fails, the answer is no.
pub fn decide(request: &Request, set: &PolicySet, facts: &Facts) -> Decision {
    let answer = match facts.person {
        Standing::Unknown => Err(No::Deny(Denial::UnknownPerson)),
        Standing::Locked => Err(No::Deny(Denial::PersonLocked)),
        Standing::Active => match request.action {
            Action::OpenSession => open_session(request, set, facts),
            Action::ManageWorkspace => manage_workspace(request, set, facts),
            Action::Channel(channel) => open_channel(request, channel, set, facts),
            Action::ReadDataset => read_dataset(request, set, facts),
            Action::PlayRecording => play_recording(request, set, facts),
            Action::Deposit
            | Action::IssueCertificate
            | Action::KeepRecord
            | Action::FetchRecord
            | Action::Administer(_) => administer(request, facts),
        },
    };
    match answer {
        Ok(basis) => Decision::Permit(basis),
        Err(No::Deny(denial)) => Decision::Deny(denial),
        Err(No::Manual(denial)) => Decision::Manual(denial),
    }
}

enum No {
    Deny(Denial),
    Manual(Denial),
}

impl From<Denial> for No {
    fn from(denial: Denial) -> No {
        No::Deny(denial)
    }
}

fn failed(error: impl std::fmt::Display) -> No {
    No::Deny(Denial::Error(error.to_string()))
}

fn open_session(request: &Request, set: &PolicySet, facts: &Facts) -> Result<Basis, No> {
    if request.dataset.is_some() {
        return Err(Denial::Malformed("a session is opened for a study, not for a dataset").into());
    }
    let (rules, stands) = at_study(request, set, facts)?;
    let roles: Vec<&RoleId> = rules.opening_roles(&request.person).collect();
    let allowed = rules.may_open(&request.person, request.now).map_err(failed)?;
    agree(allowed, !roles.is_empty())?;
    if !allowed {
        return Err(role_missing(STUDY, request.action));
    }
    purposes(request, stands)?;
    Ok(Basis {
        rules: matrix_rules(STUDY, roles, request.action),
        grants: Vec::new(),
        obligations: vec![Obligation::EndBy(stands.until)],
    })
}

/// The person's roles in the study that may do what is asked; having none is a denial.
fn roles_that_may<'a>(request: &Request, rules: &'a StudyRules) -> Result<Vec<&'a RoleId>, No> {
    let matrix = matrix().map_err(failed)?;
    let mut roles = Vec::new();
    for role in rules.roles(&request.person) {
        if matrix.allows(STUDY, role, request.action).map_err(failed)? {
            roles.push(role);
        }
    }
    if roles.is_empty() { Err(role_missing(STUDY, request.action)) } else { Ok(roles) }
}

/// Another member's workspace: it takes a role in the study that may.
fn manage_workspace(request: &Request, set: &PolicySet, facts: &Facts) -> Result<Basis, No> {
    let (rules, _) = at_study(request, set, facts)?;
    let roles = roles_that_may(request, rules)?;
    let rules = matrix_rules(STUDY, roles, request.action);
    Ok(Basis { rules, grants: Vec::new(), obligations: Vec::new() })
}

/// A channel of a session: the gate has it, the role permits it, the certificate and the study do.
fn open_channel(request: &Request, channel: Channel, set: &PolicySet, facts: &Facts) -> Result<Basis, No> {
    let (rules, stands) = at_study(request, set, facts)?;
    if !channel.is_offered() {
        return Err(Denial::ChannelNotOffered { channel }.into());
    }
    let roles = roles_that_may(request, rules)?;
    if !facts.certificate.allows(channel) {
        return Err(Denial::ChannelNotCertified { channel }.into());
    }
    if !stands.channels.allows(channel) {
        return Err(Denial::ChannelRefused { study: rules.study().clone(), channel }.into());
    }
    let mut matched = vec![RuleId::of_channel(rules.study(), channel, true)];
    matched.extend(matrix_rules(STUDY, roles, request.action));
    Ok(Basis { rules: matched, grants: Vec::new(), obligations: vec![Obligation::EndBy(stands.until)] })
}

fn read_dataset(request: &Request, set: &PolicySet, facts: &Facts) -> Result<Basis, No> {
    let Some(dataset) = &request.dataset else {
        return Err(Denial::Malformed("reading takes a dataset").into());
    };
    let (rules, stands) = at_study(request, set, facts)?;
    let roles: Vec<&RoleId> = rules.reading_roles(&request.person).collect();
    if roles.is_empty() {
        return Err(role_missing(STUDY, request.action));
    }
    let purposes = purposes(request, stands)?;
    let verdict = duo::admits(&facts.conditions, purposes, Diseases::builtin());
    let word = match &verdict {
        Verdict::Permitted => DUO_PERMITTED,
        Verdict::Review(_) => "review",
        Verdict::Refused => "refused",
    };
    let named: Vec<&GrantRule> = rules.grants_for(&request.person, dataset).collect();
    let current: Vec<&GrantRule> = named.iter().copied().filter(|g| holds(g, request.now)).collect();
    let allowed = rules.may_read(&request.person, dataset, word, request.now).map_err(failed)?;
    agree(allowed, !current.is_empty() && verdict == Verdict::Permitted)?;
    if current.is_empty() {
        return Err(no_grant(dataset, &named, request.now).into());
    }
    match verdict {
        Verdict::Permitted => {}
        Verdict::Review(codes) => return Err(No::Manual(Denial::NeedsReview { codes })),
        Verdict::Refused => return Err(purpose_not_allowed(dataset, facts, purposes)),
    }
    // Several grants may cover the dataset; the one that lasts longest says when it ends.
    let until = current.iter().map(|g| g.not_after).max().unwrap_or(request.now).min(stands.until);
    let mut matched: Vec<RuleId> = current.iter().map(|g| RuleId::of_grant(&g.grant)).collect();
    matched.extend(matrix_rules(STUDY, roles, request.action));
    Ok(Basis {
        rules: matched,
        grants: current.iter().map(|g| g.grant.clone()).collect(),
        obligations: vec![Obligation::EndBy(until)],
    })
}

/// Recordings are for a role in the programme; for one in their study too, where the study says so.
fn play_recording(request: &Request, set: &PolicySet, facts: &Facts) -> Result<Basis, No> {
    let refused = match administer(request, facts) {
        Ok(basis) => return Ok(basis),
        Err(refused) => refused,
    };
    let Ok((rules, stands)) = at_study(request, set, facts) else { return Err(refused) };
    let matrix = matrix().map_err(failed)?;
    let mut roles: Vec<&RoleId> = Vec::new();
    for role in rules.roles(&request.person) {
        if stands.recording.lead && matrix.allows(STUDY, role, request.action).map_err(failed)? {
            roles.push(role);
        }
    }
    if roles.is_empty() {
        return Err(refused);
    }
    let rules = matrix_rules(STUDY, roles, request.action);
    Ok(Basis { rules, grants: Vec::new(), obligations: vec![Obligation::EndBy(stands.until)] })
}

/// What takes a role in the programme and nothing else.
fn administer(request: &Request, facts: &Facts) -> Result<Basis, No> {
    if request.action == Action::Deposit && request.dataset.is_none() {
        return Err(Denial::Malformed("a deposit takes a dataset").into());
    }
    let matrix = matrix().map_err(failed)?;
    let mut roles: Vec<&RoleId> = Vec::new();
    for role in std::iter::once(matrix.everyone()).chain(&facts.programme_roles) {
        if !roles.contains(&role) && matrix.allows(PROGRAMME, role, request.action).map_err(failed)? {
            roles.push(role);
        }
    }
    if roles.is_empty() {
        return Err(role_missing(PROGRAMME, request.action));
    }
    let rules = matrix_rules(PROGRAMME, roles, request.action);
    Ok(Basis { rules, grants: Vec::new(), obligations: Vec::new() })
}

/// The study of the request, if the person is a member and it is open.
fn at_study<'a>(
    request: &'a Request,
    set: &'a PolicySet,
    facts: &'a Facts,
) -> Result<(&'a StudyRules, &'a StudyFacts), No> {
    let Some(study) = &request.study else {
        return Err(Denial::Malformed("this takes a study").into());
    };
    let not_a_member = || No::from(Denial::NotAMember { study: study.clone() });
    let rules = set.study(study).ok_or_else(not_a_member)?;
    if rules.roles(&request.person).is_empty() {
        return Err(not_a_member());
    }
    let stands = facts.study.as_ref().ok_or_else(not_a_member)?;
    if !stands.active || request.now >= stands.until {
        return Err(Denial::StudyClosed { study: study.clone() }.into());
    }
    Ok((rules, stands))
}

/// The purposes that the request is for: the one it names, or all of the study's.
fn purposes<'a>(request: &'a Request, stands: &'a StudyFacts) -> Result<&'a [Purpose], No> {
    match &request.purpose {
        None => Ok(&stands.purposes),
        Some(asked) if stands.purposes.contains(asked) => Ok(std::slice::from_ref(asked)),
        Some(asked) => Err(Denial::PurposeNotOfStudy { asked: asked.clone() }.into()),
    }
}

fn holds(grant: &GrantRule, now: Timestamp) -> bool {
    grant.not_before <= now && now < grant.not_after
}

/// Two evaluations of the same rules must agree, or neither is believed.
fn agree(engine: bool, ours: bool) -> Result<(), No> {
    if engine == ours { Ok(()) } else { Err(failed("the rule engine and the walk over its rules disagree")) }
}

fn no_grant(dataset: &DatasetId, named: &[&GrantRule], now: Timestamp) -> Denial {
    // A window that is empty neither begins nor ends.
    let real = || named.iter().filter(|g| g.not_before < g.not_after);
    if let Some(next) = real().filter(|g| now < g.not_before).min_by_key(|g| g.not_before) {
        Denial::GrantNotYet { grant: next.grant.clone(), from: next.not_before }
    } else if let Some(last) = real().max_by_key(|g| g.not_after) {
        Denial::GrantExpired { grant: last.grant.clone(), at: last.not_after }
    } else {
        Denial::NoGrant { dataset: dataset.clone() }
    }
}

fn purpose_not_allowed(dataset: &DatasetId, facts: &Facts, purposes: &[Purpose]) -> No {
    let refused =
        |p: &&Purpose| duo::alternatives_admit(&facts.conditions, p, Diseases::builtin()) == Verdict::Refused;
    match purposes.iter().find(refused) {
        Some(asked) => No::Deny(Denial::PurposeNotAllowed {
            dataset: dataset.clone(),
            asked: asked.clone(),
            allowed: facts.conditions.clone(),
        }),
        None => failed("conditions of use were refused without a reason"),
    }
}

fn role_missing(scope: &str, action: Action) -> No {
    match matrix().map(|m| m.roles_allowing(scope, action)) {
        Ok(Ok(needed)) => No::Deny(Denial::RoleMissing { needed }),
        Ok(Err(error)) => failed(error),
        Err(error) => failed(error),
    }
}

fn matrix_rules(scope: &str, roles: Vec<&RoleId>, action: Action) -> Vec<RuleId> {
    roles.into_iter().map(|role| RuleId::of_matrix(scope, role, action.name())).collect()
}
