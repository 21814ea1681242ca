//! How values lie in columns: text and whole numbers only, which every database has.

use serde::Serialize;
use serde::de::DeserializeOwned;

use model::Timestamp;

use crate::error::StoreError;

pub(crate) use crate::records::hex_digits as hex;

pub(crate) fn from_hex(what: &str, text: &str) -> Result<[u8; 32], StoreError> {
    let damaged = || damaged(what, "hash");
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return Err(damaged());
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        let pair = std::str::from_utf8(pair).map_err(|_| damaged())?;
        *byte = u8::from_str_radix(pair, 16).map_err(|_| damaged())?;
    }
    Ok(bytes)
}

pub(crate) fn json<T: Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|_| damaged("a list", "text"))
}

pub(crate) fn from_json<T: DeserializeOwned>(what: &str, text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|_| damaged(what, "list"))
}

pub(crate) fn id<T: std::str::FromStr>(what: &str, text: &str) -> Result<T, StoreError> {
    text.parse().map_err(|_| damaged(what, "identifier"))
}

pub(crate) fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

/// A column that the state requires.
pub(crate) fn required<T>(what: &str, value: Option<T>) -> Result<T, StoreError> {
    value.ok_or_else(|| damaged(what, "state"))
}

pub(crate) fn damaged(what: &str, part: &str) -> StoreError {
    StoreError::Damaged { what: format!("{what} ({part})") }
}
