//! Who it is: proofs of identity, and what becomes of those that prove nothing.

use certs::Principal;
use gate::{Entry, Via};
use russh::keys::ssh_key::{Certificate, HashAlg};
use russh::server::{Auth, Session, VerifiedPublicKey};
use russh::{Disconnect, MethodKind, MethodSet};

use super::{Connection, FAREWELL, RECORDED_REFUSALS};
use crate::ssh::choose::{self, Asked};
use crate::ssh::refusals::{Refused, certificate_refused};
use crate::ssh::supervise::Visit;

/// How far somebody has come.
pub(super) enum Standing {
    /// Nothing is proved.
    Stranger { tried: Option<String>, bare: Option<String> },
    /// A key is proved, and it opens nothing.
    Condemned { reason: String },
    /// In.
    Admitted { entry: Entry, asked: Asked, principal: Box<Principal> },
    /// In, to look at somebody else's session.
    Visitor { entry: Entry, visit: Visit },
}

impl Connection {
    fn condemn(&mut self, reason: String) -> Auth {
        self.standing = Standing::Condemned { reason };
        Auth::Accept
    }

    pub(super) fn tried(&mut self, user: &str) {
        if let Standing::Stranger { tried, .. } = &mut self.standing {
            *tried = Some(user.chars().take(64).collect());
        }
    }

    /// Records that somebody was turned away.
    async fn record_refused(&mut self, refused: Refused) {
        self.recorded += 1;
        if self.recorded > RECORDED_REFUSALS {
            return;
        }
        let event = refused.event(self.services.gate.now(), self.peer);
        if let Err(failed) = self.services.gate.record(&event).await {
            tracing::error!(code = %failed.code, "a refusal could not be recorded");
        }
    }

    pub(super) async fn bare_key(&mut self, user: &str, key: VerifiedPublicKey<'_>) -> Auth {
        self.tried(user);
        let fingerprint = key.public_key.fingerprint(HashAlg::Sha256).to_string();
        if let Some((person, at)) = self.services.issued.expired(&fingerprint, self.services.gate.now()) {
            let refused = Refused::expired(person, fingerprint, at);
            let reason = refused.reason.clone();
            self.record_refused(refused).await;
            return self.condemn(reason);
        }
        if self.services.gate.is_decoy_key(&fingerprint) {
            // It is recorded at once, however the connection goes on, and is answered like any other.
            self.record_refused(Refused::nothing_proved(user, Some(fingerprint))).await;
            if let Standing::Stranger { tried, .. } = &mut self.standing {
                *tried = None;
            }
            return Auth::reject();
        }
        // A client may well offer a bare key first and its certificate next: what is recorded is how
        // it ends.
        if let Standing::Stranger { bare, .. } = &mut self.standing {
            *bare = Some(fingerprint);
        }
        Auth::reject()
    }

    pub(super) async fn certificate(&mut self, user: &str, cert: &Certificate) -> Auth {
        self.tried(user);
        if !matches!(self.standing, Standing::Stranger { .. }) {
            return Auth::reject();
        }
        let trust = self.services.trust.load();
        let now = self.services.gate.now();
        let checked = certs::check_user_certificate(cert, &trust, now, Some(self.peer.ip()));
        let refused = match checked {
            Ok(principal) => {
                let entry = Entry {
                    person: principal.person.clone(),
                    peer: Some(self.peer),
                    via: Via::Ssh,
                    key_fingerprint: principal.key_fingerprint.clone(),
                };
                if let Some(asked) = choose::parse(user, &principal.person) {
                    self.standing = Standing::Admitted { entry, asked, principal: Box::new(principal) };
                    return Auth::Accept;
                }
                // What a certificate forces, it forces here too: and this is no command.
                let forced = principal.permits.force_command.is_some();
                if let Some(visit) = Visit::parse(user).filter(|_| !forced) {
                    self.standing = Standing::Visitor { entry, visit };
                    return Auth::Accept;
                }
                Refused::no_study(user, &principal)
            }
            Err(refusal) => certificate_refused(cert, &refusal),
        };
        let reason = refused.reason.clone();
        self.record_refused(refused).await;
        self.condemn(reason)
    }

    pub(super) fn advise(answered: bool) -> Auth {
        if answered {
            // Once is enough: the method is taken off the list.
            return Auth::Reject {
                proceed_with_methods: Some(MethodSet::from(&[MethodKind::PublicKey][..])),
                partial_success: false,
            };
        }
        Auth::Partial {
            name: "".into(),
            instructions: "sekisho: this gate opens to a valid certificate only, and none was presented. If you have one it has expired: run `sekisho login`, then connect again.".into(),
            prompts: (&[][..]).into(),
        }
    }

    pub(super) fn admitted(&mut self, session: &mut Session) -> Result<(), russh::Error> {
        self.proved.cancel();
        if let Standing::Admitted { .. } | Standing::Visitor { .. } = &self.standing
            && let Err(full) = self.pass.establish()
        {
            self.standing = Standing::Condemned { reason: full.to_string() };
        }
        if let Standing::Condemned { reason } = &self.standing {
            session.disconnect(Disconnect::ByApplication, &format!("sekisho: {reason}"), "en")?;
            self.knife.cut_after(FAREWELL, self.gone.clone());
        }
        Ok(())
    }
}
