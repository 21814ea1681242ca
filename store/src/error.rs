use sea_orm::{DbErr, SqlErr};

use crate::records::TransitionError;

/// Why records could not be read or changed. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no such record.
    #[error("there is no {0} on record; check the name")]
    NotFound(String),
    /// A record of that name exists, or one that it refers to does not.
    #[error("{0}")]
    Conflict(String),
    /// A change that cannot follow the present state.
    #[error("{what} cannot be changed so: {source}")]
    Transition {
        /// Which record.
        what: String,
        /// The states.
        #[source]
        source: TransitionError,
    },
    /// The database did not answer, or not in time.
    #[error("the records cannot be reached at the moment; try again, and tell the operators if it persists")]
    Unavailable {
        /// What the database said.
        #[source]
        source: DbErr,
    },
    /// A record that this version cannot read. Somebody else wrote it.
    #[error("the record of {what} is damaged; tell the operators")]
    Damaged {
        /// Which record, and which part.
        what: String,
    },
}

/// Why a one-time token was not taken.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    /// No token has this hash.
    #[error("the token is not known; ask for another one")]
    Unknown,
    /// It was taken before.
    #[error(
        "the token was used before; if that was not you, tell the security office, and ask for another one"
    )]
    Used,
    /// It came too late.
    #[error("the token has expired; ask for another one")]
    Expired,
    /// The records failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why the records could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file cannot be created or read.
    #[error("the records in {path} cannot be opened; check the folder and who owns it")]
    File {
        /// The file.
        path: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The database refused.
    #[error("the database of records cannot be opened; check that the file is a database of this programme")]
    Database(#[source] DbErr),
    /// A later version of this program wrote it.
    #[error(
        "the records have version {found}, and this program knows versions up to {known}; install the newer program"
    )]
    Newer {
        /// The version of the records.
        found: i64,
        /// The latest version that this program knows.
        known: i64,
    },
}

impl StoreError {
    /// From what the database said when `what` was to be written.
    pub(crate) fn writing(what: &str, error: DbErr) -> StoreError {
        match error.sql_err() {
            Some(SqlErr::UniqueConstraintViolation(_)) => {
                StoreError::Conflict(format!("{what} is on record already; choose another name"))
            }
            Some(SqlErr::ForeignKeyConstraintViolation(_)) => StoreError::Conflict(format!(
                "{what} refers to something that is not on record; record that first"
            )),
            _ => StoreError::Unavailable { source: error },
        }
    }
}

impl From<DbErr> for StoreError {
    fn from(source: DbErr) -> StoreError {
        StoreError::Unavailable { source }
    }
}
