use std::fmt;

use policy::Denial;

/// A "no" from the gate, in the words that the person is shown.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// A stable word for programs.
    pub code: String,
    /// What happened, why, and what to do; holds no secret.
    pub message: String,
    /// The index of the record of this refusal, unless the log itself failed.
    pub record: Option<u64>,
    /// What kind of "no" it is, for a front door that must choose a status.
    pub kind: RefusalKind,
}

/// What kind of "no" it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalKind {
    /// Policy says no.
    Denied,
    /// The request itself makes no sense.
    Malformed,
    /// What is asked for does not exist, or is not for this person to know of.
    NotFound,
    /// It clashes with what is there.
    Conflict,
    /// Something the gate needs did not answer; trying again may help.
    Unavailable,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Refusal {}

impl Refusal {
    pub(crate) fn new(kind: RefusalKind, code: &str, message: impl Into<String>) -> Refusal {
        Refusal { code: code.to_owned(), message: message.into(), record: None, kind }
    }

    pub(crate) fn denied(denial: &Denial) -> Refusal {
        Refusal::new(RefusalKind::Denied, denial.code(), sentence(&denial.to_string()))
    }

    pub(crate) fn malformed(message: impl Into<String>) -> Refusal {
        Refusal::new(RefusalKind::Malformed, "malformed", message)
    }

    /// The log did not take the record: nothing may happen.
    pub(crate) fn unrecorded(error: audit::AppendError) -> Refusal {
        tracing::error!(%error, "the audit log takes no records; every request is refused");
        Refusal::new(
            RefusalKind::Unavailable,
            "audit-unavailable",
            "The audit log cannot record this request, so it was refused. Please tell the operators.",
        )
    }

    pub(crate) fn store(error: &store::StoreError) -> Refusal {
        use store::StoreError as E;
        match error {
            E::NotFound(_) => Refusal::new(RefusalKind::NotFound, "not-found", sentence(&error.to_string())),
            E::Conflict(_) | E::Transition { .. } => {
                Refusal::new(RefusalKind::Conflict, "conflict", sentence(&error.to_string()))
            }
            other => {
                tracing::error!(error = %other, "the records did not answer; the request is refused");
                Refusal::new(
                    RefusalKind::Unavailable,
                    "records-unavailable",
                    "The records cannot be read at the moment, so the request was refused. Try again shortly.",
                )
            }
        }
    }

    pub(crate) fn signer(error: &signer::SignerError) -> Refusal {
        match error {
            signer::SignerError::Refused { reason } => Refusal::new(
                RefusalKind::Denied,
                "signer-refused",
                format!("The signer refused to issue this certificate: {reason}."),
            ),
            other => {
                tracing::error!(error = %other, "the signer did not answer");
                Refusal::new(
                    RefusalKind::Unavailable,
                    "signer-unavailable",
                    "Certificates cannot be issued at the moment. Try again in a minute.",
                )
            }
        }
    }

    pub(crate) fn entropy(error: &model::EntropyError) -> Refusal {
        tracing::error!(%error, "no randomness; the request is refused");
        Refusal::new(
            RefusalKind::Unavailable,
            "unavailable",
            "The door cannot open at the moment. Try again shortly.",
        )
    }

    /// The record that a request names is not there.
    pub(crate) fn unknown(what: &str) -> Refusal {
        Refusal::store(&store::StoreError::NotFound(what.to_owned()))
    }

    pub(crate) fn recorded_at(mut self, index: u64) -> Refusal {
        self.record = Some(index);
        self
    }
}

/// Rooms word their reasons as clauses; a person reads a sentence.
pub(crate) fn sentence(clause: &str) -> String {
    let end = if clause.ends_with(['.', '!', '?']) { "" } else { "." };
    // An identifier is written as it is, also at the beginning.
    if clause.split_whitespace().next().is_some_and(|word| word.contains(':')) {
        return format!("{clause}{end}");
    }
    let mut letters = clause.chars();
    let first = letters.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}{end}", letters.as_str())
}

#[cfg(test)]
mod tests {
    use super::sentence;

    #[test]
    fn a_clause_becomes_a_sentence() {
        assert_eq!(sentence("you are not a member"), "You are not a member.");
        assert_eq!(sentence("Stop."), "Stop.");
        assert_eq!(sentence("ds:x may not be used"), "ds:x may not be used.");
        assert_eq!(sentence(""), ".");
    }
}
