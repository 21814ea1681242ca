//! Conditions of data use after the GA4GH Data Use Ontology (<https://github.com/EBISPOT/DUO>), and
//! the purposes that are held against them.
//!
//! A dataset stands under alternative [`ConditionSet`]s, each one permission with its modifiers. An
//! answer is one of three ([`Verdict`]): what a machine cannot decide goes to people.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

pub use crate::disease::{Diseases, MondoId};

/// The most characters a code may have.
const CODE_MAX: usize = 64;
/// The most codes a set may have.
const CODES_MAX: usize = 32;

/// The main permission of a set of conditions.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Permission {
    /// DUO:0000004, no restriction.
    Nres,
    /// DUO:0000042, general research use.
    Gru,
    /// DUO:0000006, health, medical and biomedical research.
    Hmb,
    /// DUO:0000007, research on this disease and what falls under it.
    Ds(MondoId),
    /// DUO:0000011, population origins and ancestry research only.
    Poa,
}

/// A condition in addition to the permission.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Modifier {
    /// DUO:0000012, research-specific restrictions.
    Rs,
    /// DUO:0000015, no general methods research.
    Nmds,
    /// DUO:0000016, genetic studies only.
    Gso,
    /// DUO:0000018, not for profit, non-commercial use only.
    Npuncu,
    /// DUO:0000019, publication required.
    Pub,
    /// DUO:0000020, collaboration required.
    Col,
    /// DUO:0000021, ethics approval required.
    Irb,
    /// DUO:0000022, geographical restriction.
    Gs,
    /// DUO:0000024, publication moratorium.
    Mor,
    /// DUO:0000025, time limit on use.
    Ts,
    /// DUO:0000026, user-specific restriction.
    Us,
    /// DUO:0000027, project-specific restriction.
    Ps,
    /// DUO:0000028, institution-specific restriction.
    Is,
    /// DUO:0000029, return to database or resource.
    Rtn,
    /// DUO:0000043, clinical care use.
    Cc,
    /// DUO:0000044, population origins or ancestry research prohibited.
    Npoa,
    /// DUO:0000045, not-for-profit organisations only.
    Npu,
    /// DUO:0000046, non-commercial use only.
    Ncu,
    /// A code that this version does not know, or a known one with an argument.
    Unknown(String),
}

const MODIFIERS: [(Modifier, &str, &str); 18] = [
    (Modifier::Rs, "RS", "DUO:0000012"),
    (Modifier::Nmds, "NMDS", "DUO:0000015"),
    (Modifier::Gso, "GSO", "DUO:0000016"),
    (Modifier::Npuncu, "NPUNCU", "DUO:0000018"),
    (Modifier::Pub, "PUB", "DUO:0000019"),
    (Modifier::Col, "COL", "DUO:0000020"),
    (Modifier::Irb, "IRB", "DUO:0000021"),
    (Modifier::Gs, "GS", "DUO:0000022"),
    (Modifier::Mor, "MOR", "DUO:0000024"),
    (Modifier::Ts, "TS", "DUO:0000025"),
    (Modifier::Us, "US", "DUO:0000026"),
    (Modifier::Ps, "PS", "DUO:0000027"),
    (Modifier::Is, "IS", "DUO:0000028"),
    (Modifier::Rtn, "RTN", "DUO:0000029"),
    (Modifier::Cc, "CC", "DUO:0000043"),
    (Modifier::Npoa, "NPOA", "DUO:0000044"),
    (Modifier::Npu, "NPU", "DUO:0000045"),
    (Modifier::Ncu, "NCU", "DUO:0000046"),
];

/// One permission with its modifiers: an alternative under which a dataset may be used.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ConditionSet {
    permission: Permission,
    modifiers: Vec<Modifier>,
}

/// What data are to be used for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Purpose {
    /// Research on a disease: `DS:MONDO:0004992`.
    Disease(MondoId),
    /// Health, medical or biomedical research: `HMB`.
    Health,
    /// Population origins or ancestry: `POA`.
    Ancestry,
    /// Any research: `GRU`.
    General,
    /// Development of methods: `MDS`.
    Methods,
}

/// What comes of holding a purpose against conditions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The conditions allow the purpose.
    Permitted,
    /// Only people can tell; these codes are why.
    Review(Vec<String>),
    /// The conditions exclude the purpose.
    Refused,
}

/// Why codes are not a set of conditions.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConditionError {
    /// No code at all, or too many.
    #[error("a set of conditions has 1 to {CODES_MAX} codes")]
    Count,
    /// None of the codes is a permission.
    #[error("one of the codes must be a permission: NRES, GRU, HMB, DS:MONDO:…, or POA")]
    NoPermission,
    /// Several codes are permissions; alternatives are sets of their own.
    #[error("a set has one permission; write alternatives as sets of their own")]
    SeveralPermissions,
    /// A disease-specific permission without its disease.
    #[error("a disease is written like DS:MONDO:0004992")]
    Disease,
    /// A code with characters that codes do not have, or too long.
    #[error("a code has 1 to {CODE_MAX} letters, digits, ':', '-', '_' or '.'")]
    Code,
}

/// Why a text is not a purpose.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a purpose is one of GRU, HMB, POA, MDS, or a disease like DS:MONDO:0004992")]
pub struct PurposeError;

impl ConditionSet {
    /// From a permission and modifiers that are known already.
    pub fn new(permission: Permission, modifiers: Vec<Modifier>) -> ConditionSet {
        ConditionSet { permission, modifiers }
    }

    /// Reads codes such as `["DS:MONDO:0007254", "NPU"]` or `["DUO:0000042"]`, in any order and
    /// case. A code that is not known becomes [`Modifier::Unknown`], which people must judge.
    pub fn parse<S: AsRef<str>>(codes: &[S]) -> Result<ConditionSet, ConditionError> {
        if codes.is_empty() || codes.len() > CODES_MAX {
            return Err(ConditionError::Count);
        }
        let mut permission = None;
        let mut modifiers = Vec::new();
        for code in codes {
            match parse_code(code.as_ref())? {
                Code::Permission(found) if permission.is_none() => permission = Some(found),
                Code::Permission(_) => return Err(ConditionError::SeveralPermissions),
                Code::Modifier(found) if modifiers.contains(&found) => {}
                Code::Modifier(found) => modifiers.push(found),
            }
        }
        Ok(ConditionSet { permission: permission.ok_or(ConditionError::NoPermission)?, modifiers })
    }

    /// The permission.
    pub fn permission(&self) -> &Permission {
        &self.permission
    }

    /// The modifiers, each once.
    pub fn modifiers(&self) -> &[Modifier] {
        &self.modifiers
    }

    /// Whether this set alone allows `purpose`.
    pub fn admits(&self, purpose: &Purpose, diseases: &Diseases) -> Verdict {
        let mut review = Vec::new();
        match permission_admits(&self.permission, purpose, diseases) {
            Verdict::Refused => return Verdict::Refused,
            Verdict::Review(codes) => review = codes,
            Verdict::Permitted => {}
        }
        for modifier in &self.modifiers {
            match (modifier, purpose) {
                (Modifier::Nmds, Purpose::Methods) | (Modifier::Npoa, Purpose::Ancestry) => {
                    return Verdict::Refused;
                }
                // General research may turn into either, so only people can tell.
                (Modifier::Nmds | Modifier::Npoa, Purpose::Disease(_) | Purpose::Health)
                | (Modifier::Nmds, Purpose::Ancestry)
                | (Modifier::Npoa, Purpose::Methods) => {}
                (other, _) => review.push(other.to_string()),
            }
        }
        if review.is_empty() { Verdict::Permitted } else { Verdict::Review(review) }
    }

    /// Alternatives as a person reads them: `HMB or DS:MONDO:0004992 with NPU`.
    pub fn list(sets: &[ConditionSet]) -> String {
        sets.iter().map(ConditionSet::to_string).collect::<Vec<_>>().join(" or ")
    }
}

/// Holds every purpose against the alternatives: each purpose must be allowed by one of them. No
/// purpose, or no alternative, is for people to judge.
pub fn admits(conditions: &[ConditionSet], purposes: &[Purpose], diseases: &Diseases) -> Verdict {
    if conditions.is_empty() || purposes.is_empty() {
        let what = if conditions.is_empty() { "no-condition-recorded" } else { "no-purpose-recorded" };
        return Verdict::Review(vec![what.to_owned()]);
    }
    let mut review = Vec::new();
    for purpose in purposes {
        match alternatives_admit(conditions, purpose, diseases) {
            Verdict::Refused => return Verdict::Refused,
            Verdict::Review(codes) => review.extend(codes),
            Verdict::Permitted => {}
        }
    }
    review.sort();
    review.dedup();
    if review.is_empty() { Verdict::Permitted } else { Verdict::Review(review) }
}

/// The best that one of the alternatives gives.
pub(crate) fn alternatives_admit(
    conditions: &[ConditionSet],
    purpose: &Purpose,
    diseases: &Diseases,
) -> Verdict {
    let mut best = Verdict::Refused;
    for set in conditions {
        match (set.admits(purpose, diseases), &mut best) {
            (Verdict::Permitted, _) => return Verdict::Permitted,
            (Verdict::Review(codes), Verdict::Review(so_far)) => so_far.extend(codes),
            (review @ Verdict::Review(_), _) => best = review,
            (Verdict::Refused, _) => {}
        }
    }
    best
}

fn permission_admits(permission: &Permission, purpose: &Purpose, diseases: &Diseases) -> Verdict {
    let allowed = match (permission, purpose) {
        (Permission::Nres | Permission::Gru, _) => true,
        (Permission::Hmb, Purpose::Disease(_) | Purpose::Health | Purpose::Methods) => true,
        (Permission::Hmb, Purpose::Ancestry | Purpose::General) => false,
        (Permission::Ds(of), Purpose::Disease(asked)) => match diseases.is_under(asked, of) {
            Some(under) => under,
            // Either term lies outside the table, so kinship can be neither shown nor excluded.
            None => return Verdict::Review(vec![permission.to_string()]),
        },
        (Permission::Ds(_) | Permission::Poa, Purpose::Methods) => true,
        (Permission::Ds(_), Purpose::Health | Purpose::Ancestry | Purpose::General) => false,
        (Permission::Poa, Purpose::Ancestry) => true,
        (Permission::Poa, Purpose::Disease(_) | Purpose::Health | Purpose::General) => false,
    };
    if allowed { Verdict::Permitted } else { Verdict::Refused }
}

enum Code {
    Permission(Permission),
    Modifier(Modifier),
}

fn parse_code(text: &str) -> Result<Code, ConditionError> {
    let plain = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b':' | b'-' | b'_' | b'.');
    if text.is_empty() || text.len() > CODE_MAX || !text.bytes().all(plain) {
        return Err(ConditionError::Code);
    }
    let code = text.to_ascii_uppercase();
    let permission = match code.as_str() {
        "NRES" | "DUO:0000004" => Some(Permission::Nres),
        "GRU" | "DUO:0000042" => Some(Permission::Gru),
        "HMB" | "DUO:0000006" => Some(Permission::Hmb),
        "POA" | "DUO:0000011" => Some(Permission::Poa),
        "DS" | "DUO:0000007" => return Err(ConditionError::Disease),
        _ => match code.strip_prefix("DS:").or_else(|| code.strip_prefix("DUO:0000007:")) {
            Some(disease) => Some(Permission::Ds(disease.parse().map_err(|_| ConditionError::Disease)?)),
            None => None,
        },
    };
    Ok(match permission {
        Some(permission) => Code::Permission(permission),
        None => Code::Modifier(
            MODIFIERS
                .iter()
                .find(|(_, short, long)| code == *short || code == *long)
                .map_or_else(|| Modifier::Unknown(code.clone()), |(modifier, _, _)| modifier.clone()),
        ),
    })
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Permission::Nres => f.write_str("NRES"),
            Permission::Gru => f.write_str("GRU"),
            Permission::Hmb => f.write_str("HMB"),
            Permission::Ds(disease) => write!(f, "DS:{disease}"),
            Permission::Poa => f.write_str("POA"),
        }
    }
}

impl fmt::Display for Modifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Modifier::Unknown(code) => f.write_str(code),
            known => match MODIFIERS.iter().find(|(modifier, _, _)| modifier == known) {
                Some((_, short, _)) => f.write_str(short),
                None => f.write_str("?"),
            },
        }
    }
}

impl fmt::Display for ConditionSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.permission)?;
        for (i, modifier) in self.modifiers.iter().enumerate() {
            write!(f, "{}{modifier}", if i == 0 { " with " } else { ", " })?;
        }
        Ok(())
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Purpose::Disease(disease) => write!(f, "DS:{disease}"),
            Purpose::Health => f.write_str("HMB"),
            Purpose::Ancestry => f.write_str("POA"),
            Purpose::General => f.write_str("GRU"),
            Purpose::Methods => f.write_str("MDS"),
        }
    }
}

impl FromStr for Purpose {
    type Err = PurposeError;

    fn from_str(text: &str) -> Result<Self, PurposeError> {
        if text.len() > CODE_MAX {
            return Err(PurposeError);
        }
        match text.to_ascii_uppercase().as_str() {
            "HMB" | "DUO:0000006" => Ok(Purpose::Health),
            "POA" | "DUO:0000011" => Ok(Purpose::Ancestry),
            "GRU" | "DUO:0000042" => Ok(Purpose::General),
            "MDS" => Ok(Purpose::Methods),
            other => other
                .strip_prefix("DS:")
                .or_else(|| other.strip_prefix("DUO:0000007:"))
                .and_then(|disease| disease.parse().ok())
                .map(Purpose::Disease)
                .ok_or(PurposeError),
        }
    }
}

impl Serialize for Purpose {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Purpose {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(de::Error::custom)
    }
}
