//! What happens within a session that is open, and is recorded with it.

use audit::EventKind;
use model::StudyId;
use policy::{Action, Channel, Denial};

use crate::channels::kind_of;
use crate::{Entry, Gate, OpenSession, Permit, Refusal};

impl Gate {
    /// Records that a file was refused to a session of `sftp`, and says what its person is told.
    pub async fn refuse_file(
        &self,
        permit: &Permit<OpenSession>,
        channel: Channel,
        path: &str,
    ) -> Result<Refusal, Refusal> {
        let denial = Denial::ChannelRefused { study: permit.action().study.clone(), channel };
        let kind = EventKind::ChannelRefused { what: kind_of(channel), detail: path.to_owned() };
        let epoch = self.inner.policies.load().epoch();
        let event = self.within(permit, kind);
        self.refuse(event, Action::Channel(channel), &denial, epoch).await
    }

    /// Records that a connection was asked for to somewhere else than a workspace, and says what
    /// the person is told.
    pub async fn refuse_forward(
        &self,
        entry: &Entry,
        study: &StudyId,
        detail: &str,
    ) -> Result<Refusal, Refusal> {
        let channel = Channel::LocalForward;
        let kind = EventKind::ChannelRefused { what: kind_of(channel), detail: detail.to_owned() };
        let event = audit::Event { study: Some(study.clone()), ..self.happened_to(entry, kind) };
        let epoch = self.inner.policies.load().epoch();
        self.refuse(event, Action::Channel(channel), &Denial::ForwardElsewhere, epoch).await
    }

    /// Records something that happened within a session.
    pub async fn record_in(&self, permit: &Permit<OpenSession>, kind: EventKind) -> Result<(), Refusal> {
        self.record(&self.within(permit, kind)).await.map(drop)
    }

    pub(crate) fn within(&self, permit: &Permit<OpenSession>, kind: EventKind) -> audit::Event {
        let access = permit.action();
        audit::Event {
            person: Some(access.person.clone()),
            device: Some(access.key_fingerprint.clone()),
            session: Some(access.session.clone()),
            study: Some(access.study.clone()),
            ..self.happened(kind)
        }
    }
}
