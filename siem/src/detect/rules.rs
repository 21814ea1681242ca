//! A set of Sigma rules: read as a whole, or refused as a whole with the place of the fault.
//!
//! Sigma is what the published specification says (rules V2, correlations V2), with these limits:
//! no filter files, no `action:` collections, no correlation of correlations, and of correlations the
//! types that can be decided with bounded memory. A rule for a source that this house does not have,
//! or with a field that its events do not have, would never fit and is a fault.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use rsigma_eval::{CompiledRule, compile_rule};
use rsigma_parser::{
    ConditionOperator, CorrelationCondition, CorrelationRule, CorrelationType, Detection, LogSource,
    SigmaParserError, SigmaRule, parse_sigma_yaml,
};
use serde::Serialize;

use super::Level;
use super::view::{ALIASES, DECOY, FILE, NETWORK, PROCESS};

/// The largest file of rules, in bytes.
pub(super) const FILE_MAX: usize = 256 << 10;
/// The most files, and the most rules, of a set.
pub(super) const FILES_MAX: usize = 2048;
const RULES_MAX: usize = 4096;
/// The most documents in a file.
const DOCUMENTS_MAX: usize = 256;
/// The longest title and identifier, in characters: they stand in every finding.
const TITLE_MAX: usize = 200;
const ID_MAX: usize = 64;
const TAGS_MAX: usize = 16;
/// What the names of our own files begin with, so that a folder cannot have the same.
const OWN: &str = "sekisho:";
/// The highest threshold and the longest time of a correlation: both bound what it remembers.
const THRESHOLD_MAX: u64 = 1000;
const TIMESPAN_MAX: u64 = 7 * 86_400;
/// The most rules that a correlation brings together, and fields it groups by.
const REFERENCES_MAX: usize = 16;

/// A file of rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// What it is called, for people.
    pub name: String,
    /// What stands in it.
    pub text: String,
}

/// Why a set of rules is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize)]
pub struct RuleError {
    /// The file.
    pub file: String,
    /// The line, counted from 1, where it could be told.
    pub line: Option<usize>,
    /// What is wrong, and what would be right.
    pub reason: String,
}

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.file, self.reason),
            None => write!(f, "{}: {}", self.file, self.reason),
        }
    }
}

/// What a rule says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RuleInfo {
    /// Its id, the same for ever.
    pub id: String,
    /// Its name, by which correlations, people and the configuration may call it.
    pub name: Option<String>,
    /// Its title.
    pub title: String,
    /// Its title in Japanese, under `title_ja`.
    pub title_ja: Option<String>,
    /// What it is about.
    pub description: Option<String>,
    /// The same in Japanese, under `description_ja`.
    pub description_ja: Option<String>,
    /// Its level; `medium` where it names none.
    pub level: Level,
    /// Its tags.
    pub tags: Vec<String>,
    /// What honest work may look like it.
    pub falsepositives: Vec<String>,
    /// The file it stands in.
    pub file: String,
    /// Whether it makes findings of its own, or only feeds correlations.
    pub reports: bool,
}

/// A rule about single events.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) info: RuleInfo,
    pub(super) compiled: CompiledRule,
    /// The correlations that count it, and as which of theirs.
    pub(super) feeds: Vec<(usize, usize)>,
}

/// A rule about several events.
#[derive(Debug)]
pub(super) struct Correlation {
    pub(super) info: RuleInfo,
    pub(super) shape: Shape,
    /// What must be equal, for each of its rules: the field is called differently by some.
    pub(super) group_by: Vec<Vec<String>>,
    pub(super) timespan: std::time::Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Shape {
    /// That many events.
    Count(usize),
    /// That many different values of the field, which each of its rules may call differently.
    Values(usize, Vec<String>),
    /// One of each, in any order or in theirs.
    All { rules: usize, ordered: bool },
}

/// Rules that are used together.
#[derive(Debug, Default)]
pub struct RuleSet {
    pub(super) rules: Vec<Rule>,
    pub(super) correlations: Vec<Correlation>,
    by_kind: HashMap<&'static str, Vec<usize>>,
    hash: String,
}

impl RuleSet {
    /// Reads a set. A rule of a later group (a folder of the operator) takes the place of one of an
    /// earlier group with the same id; twice the same id in a group is a fault.
    pub fn parse(groups: &[&[Text]]) -> Result<RuleSet, RuleError> {
        let mut found: BTreeMap<String, Parsed> = BTreeMap::new();
        let mut hasher = blake3::Hasher::new();
        let mut count = 0;
        for group in groups {
            let mut own: BTreeMap<String, Parsed> = BTreeMap::new();
            for text in *group {
                hash_file(&mut hasher, text);
                for parsed in parse_file(text)? {
                    count += 1;
                    if count > RULES_MAX {
                        return Err(fault(&text.name, None, format!("more than {RULES_MAX} rules in all")));
                    }
                    let line = parsed.line;
                    if let Some(earlier) = own.insert(parsed.info.id.clone(), parsed) {
                        let why =
                            format!("the id {} stands in {} already", earlier.info.id, earlier.info.file);
                        return Err(fault(&text.name, Some(line), why));
                    }
                }
            }
            found.extend(own);
        }
        let hash = hasher.finalize().to_hex()[..16].to_owned();
        link(found.into_values().collect(), hash)
    }

    /// The rules that this house comes with.
    pub fn builtin() -> Vec<Text> {
        let text =
            |(name, text): &(&str, &str)| Text { name: format!("{OWN}{name}"), text: (*text).to_owned() };
        super::BUILTIN.iter().map(text).collect()
    }

    /// Sixteen hexadecimal digits that stand for what the files of the set say.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// How many rules make findings.
    pub fn len(&self) -> usize {
        self.infos().filter(|info| info.reports).count()
    }

    /// Whether none does.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What each rule says about itself, single events first.
    pub fn infos(&self) -> impl Iterator<Item = &RuleInfo> {
        self.rules.iter().map(|rule| &rule.info).chain(self.correlations.iter().map(|rule| &rule.info))
    }

    /// The longest time that a correlation looks back.
    pub fn longest(&self) -> std::time::Duration {
        self.correlations.iter().map(|rule| rule.timespan).max().unwrap_or_default()
    }

    /// The rules that may fit an event of this kind.
    pub(super) fn of_kind(&self, kind: &str) -> &[usize] {
        self.by_kind.get(kind).map(Vec::as_slice).unwrap_or_default()
    }
}

enum Body {
    Single(Box<CompiledRule>, Vec<&'static str>),
    Several(Box<CorrelationRule>),
}

struct Parsed {
    info: RuleInfo,
    line: usize,
    body: Body,
}

fn fault(file: &str, line: Option<usize>, reason: impl Into<String>) -> RuleError {
    RuleError { file: file.to_owned(), line, reason: reason.into() }
}

/// Lengths first, so that no two sets of files look alike.
fn hash_file(hasher: &mut blake3::Hasher, text: &Text) {
    for part in [&text.name, &text.text] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
}

fn parse_file(text: &Text) -> Result<Vec<Parsed>, RuleError> {
    let file = text.name.as_str();
    if text.text.len() > FILE_MAX {
        return Err(fault(file, None, format!("a file of rules has at most {} KiB", FILE_MAX >> 10)));
    }
    let documents = documents(&text.text);
    if documents.len() > DOCUMENTS_MAX {
        return Err(fault(file, None, format!("a file has at most {DOCUMENTS_MAX} rules")));
    }
    if documents.is_empty() {
        return Err(fault(file, None, "no rule stands in it"));
    }
    documents.into_iter().map(|(line, document)| parse_document(file, line, &document)).collect()
}

/// The documents of a file, each with the line before it. Split by hand, so that a fault has a place.
fn documents(text: &str) -> Vec<(usize, String)> {
    let mut all = vec![(0, String::new())];
    for (number, line) in text.lines().enumerate() {
        if line.trim_end() == "---" {
            all.push((number + 1, String::new()));
        } else if let Some((_, document)) = all.last_mut() {
            document.push_str(line);
            document.push('\n');
        }
    }
    let says_something =
        |text: &str| text.lines().any(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#'));
    all.retain(|(_, document)| says_something(document));
    all
}

fn parse_document(file: &str, before: usize, document: &str) -> Result<Parsed, RuleError> {
    let first = document.lines().position(|l| !l.trim().is_empty() && !l.starts_with('#')).unwrap_or(0);
    let begin = before + first + 1;
    let place = |key: &str| {
        let key = format!("{key}:");
        let begins = document.lines().position(|line| line.trim_start().starts_with(&key));
        let at = begins.or_else(|| document.lines().position(|line| line.contains(&key)));
        Some(at.map_or(begin, |at| before + at + 1))
    };
    let parsed = parse_sigma_yaml(document).map_err(|error| {
        let line = match &error {
            SigmaParserError::Yaml(yaml) => yaml.location().map(|at| before + at.line()),
            SigmaParserError::Condition(..) | SigmaParserError::ConditionTooLong(..) => place("condition"),
            _ => None,
        };
        fault(file, line.or(Some(begin)), error.to_string())
    })?;
    if let Some(error) = parsed.errors.first() {
        let told = line_in(error).map(|line| before + line);
        let condition = error.contains("ondition").then(|| place("condition")).flatten();
        return Err(fault(file, told.or(condition).or(Some(begin)), error.clone()));
    }
    if !parsed.filters.is_empty() {
        return Err(fault(file, place("filter"), "filter files are not supported"));
    }
    match (parsed.rules.as_slice(), parsed.correlations.as_slice()) {
        ([rule], []) => single(file, &place, rule, begin),
        ([], [correlation]) => several(file, &place, correlation, begin),
        _ => Err(fault(file, Some(begin), "not one rule: collections with `action:` are not supported")),
    }
}

/// The line that a message of the YAML reader names.
fn line_in(message: &str) -> Option<usize> {
    let (_, rest) = message.split_once(" at line ")?;
    rest.split(' ').next()?.parse().ok()
}

type Place<'a> = &'a dyn Fn(&str) -> Option<usize>;

fn single(file: &str, place: Place<'_>, rule: &SigmaRule, line: usize) -> Result<Parsed, RuleError> {
    let text = |key: &str| rule.custom_attributes.get(key).and_then(|v| v.as_str()).map(str::to_owned);
    let info = RuleInfo {
        id: rule.id.clone().unwrap_or_default(),
        name: rule.name.clone(),
        title: rule.title.clone(),
        title_ja: text("title_ja"),
        description: rule.description.clone(),
        description_ja: text("description_ja"),
        level: level(rule.level),
        tags: rule.tags.clone(),
        falsepositives: rule.falsepositives.clone(),
        file: file.to_owned(),
        reports: true,
    };
    sound(&info, place)?;
    let kinds = kinds(&rule.logsource).map_err(|why| fault(file, place("logsource"), why))?;
    for detection in rule.detection.named.values() {
        fields(detection, &mut |field| {
            known(field, &kinds).then_some(()).ok_or_else(|| {
                let at = place(field).or_else(|| place("detection"));
                fault(file, at, no_field(field, &kinds))
            })
        })?;
    }
    let compiled = compile_rule(rule).map_err(|e| fault(file, place("detection"), e.to_string()))?;
    Ok(Parsed { info, line, body: Body::Single(Box::new(compiled), kinds) })
}

fn several(file: &str, place: Place<'_>, rule: &CorrelationRule, line: usize) -> Result<Parsed, RuleError> {
    let text = |key: &str| rule.custom_attributes.get(key).and_then(|v| v.as_str()).map(str::to_owned);
    let info = RuleInfo {
        id: rule.id.clone().unwrap_or_default(),
        name: rule.name.clone(),
        title: rule.title.clone(),
        title_ja: text("title_ja"),
        description: rule.description.clone(),
        description_ja: text("description_ja"),
        level: level(rule.level),
        tags: rule.tags.clone(),
        falsepositives: rule.falsepositives.clone(),
        file: file.to_owned(),
        reports: true,
    };
    sound(&info, place)?;
    if rule.rules.is_empty() || rule.rules.len() > REFERENCES_MAX || rule.group_by.len() > REFERENCES_MAX {
        let why = format!("a correlation names 1 to {REFERENCES_MAX} rules, and as many fields at most");
        return Err(fault(file, place("rules"), why));
    }
    if rule.timespan.seconds == 0 || rule.timespan.seconds > TIMESPAN_MAX {
        return Err(fault(file, place("timespan"), "a timespan lies between 1s and 7d"));
    }
    Ok(Parsed { info, line, body: Body::Several(Box::new(rule.clone())) })
}

fn level(level: Option<rsigma_parser::Level>) -> Level {
    use rsigma_parser::Level as L;
    match level {
        Some(L::Informational) => Level::Informational,
        Some(L::Low) => Level::Low,
        Some(L::Medium) | None => Level::Medium,
        Some(L::High) => Level::High,
        Some(L::Critical) => Level::Critical,
    }
}

fn sound(info: &RuleInfo, place: Place<'_>) -> Result<(), RuleError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if info.id.is_empty() || info.id.len() > ID_MAX || !info.id.chars().all(plain) {
        let why =
            format!("a rule has an id of 1 to {ID_MAX} letters, digits, '-', '_' or '.'; usually a UUID");
        return Err(fault(&info.file, place("id"), why));
    }
    let titles = [Some(&info.title), info.title_ja.as_ref()];
    if titles.into_iter().flatten().any(|t| t.is_empty() || t.chars().count() > TITLE_MAX) {
        return Err(fault(&info.file, place("title"), format!("a title has 1 to {TITLE_MAX} characters")));
    }
    if info.tags.len() > TAGS_MAX || info.tags.iter().any(|tag| tag.len() > ID_MAX) {
        return Err(fault(&info.file, place("tags"), format!("a rule has at most {TAGS_MAX} short tags")));
    }
    Ok(())
}

/// The kinds of events that a source stands for.
fn kinds(source: &LogSource) -> Result<Vec<&'static str>, String> {
    let product = source.product.as_deref();
    let everything = || audit::event_kinds().collect::<Vec<_>>();
    match (source.category.as_deref(), source.service.as_deref(), product) {
        (None, None, Some("sekisho")) => Ok(everything()),
        (None, Some(kind), Some("sekisho")) => {
            let known = audit::event_kinds().find(|known| *known == kind);
            known.map(|kind| vec![kind]).ok_or_else(|| format!("no event is called {kind}; see docs/siem.md"))
        }
        (Some(category), None, None | Some("linux" | "sekisho")) => match category {
            "process_creation" => Ok(PROCESS.to_vec()),
            "network_connection" => Ok(NETWORK.to_vec()),
            "file_access" => Ok(FILE.to_vec()),
            other => Err(format!("this house has no events of the category {other}")),
        },
        _ => {
            Err("no event here comes from this source: product sekisho with an event's name as service, or \
                  product linux with category process_creation, network_connection or file_access"
                .to_owned())
        }
    }
}

/// Goes through the fields that a detection looks at.
fn fields(
    detection: &Detection,
    each: &mut impl FnMut(&str) -> Result<(), RuleError>,
) -> Result<(), RuleError> {
    match detection {
        Detection::AllOf(items) => {
            items.iter().filter_map(|item| item.field.name.as_deref()).try_for_each(each)
        }
        Detection::AnyOf(all) => all.iter().try_for_each(|detection| fields(detection, each)),
        Detection::Keywords(_) => Ok(()),
    }
}

/// Whether some event of these kinds has the field. Of OCSF's own fields only the outermost name is
/// looked at.
fn known(field: &str, kinds: &[&'static str]) -> bool {
    match field.split_once('.') {
        None if ALIASES.contains(&field) => {
            kinds.iter().any(|kind| PROCESS.contains(kind) || NETWORK.contains(kind) || FILE.contains(kind))
        }
        _ if field == DECOY => true,
        Some(("unmapped", rest)) => {
            let name = rest.split('.').next().unwrap_or_default();
            ["kind", "study", "device", "decision"].contains(&name)
                || kinds.iter().any(|kind| audit::event_fields(kind).any(|known| known == name))
        }
        _ => OCSF.contains(&field.split('.').next().unwrap_or_default()),
    }
}

/// The outermost names of exported events.
const OCSF: &[&str] = &[
    "action_id",
    "activity_id",
    "activity_name",
    "actor",
    "api",
    "app",
    "assessments",
    "authorizations",
    "category_uid",
    "class_uid",
    "connection_info",
    "count",
    "databucket",
    "device",
    "disposition_id",
    "dst_endpoint",
    "entity",
    "launch_type_id",
    "log_name",
    "message",
    "metadata",
    "privileges",
    "process",
    "resources",
    "service",
    "severity_id",
    "src_endpoint",
    "status_code",
    "status_detail",
    "status_id",
    "time",
    "time_dt",
    "traffic",
    "tunnel_type",
    "tunnel_type_id",
    "type_uid",
    "user",
];

fn no_field(field: &str, kinds: &[&str]) -> String {
    match kinds {
        [kind] => {
            let own: Vec<String> = audit::event_fields(kind).map(|name| format!("unmapped.{name}")).collect();
            format!("{kind} has no field {field}; its own are {}", own.join(", "))
        }
        _ => format!("no event of this source has a field {field}"),
    }
}

/// Ties correlations to the rules they count.
fn link(parsed: Vec<Parsed>, hash: String) -> Result<RuleSet, RuleError> {
    let mut set = RuleSet { rules: Vec::new(), correlations: Vec::new(), by_kind: HashMap::new(), hash };
    let mut names: HashMap<String, (usize, Arc<[&'static str]>)> = HashMap::new();
    let mut several = Vec::new();
    let mut counts: HashMap<String, ()> = HashMap::new();
    for parsed in parsed {
        match parsed.body {
            Body::Single(compiled, kinds) => {
                let at = set.rules.len();
                let kinds: Arc<[&'static str]> = kinds.into();
                for name in [Some(parsed.info.id.clone()), parsed.info.name.clone()].into_iter().flatten() {
                    names.insert(name, (at, Arc::clone(&kinds)));
                }
                for kind in kinds.iter() {
                    set.by_kind.entry(kind).or_default().push(at);
                }
                set.rules.push(Rule { info: parsed.info, compiled: *compiled, feeds: Vec::new() });
            }
            Body::Several(rule) => {
                for name in [Some(parsed.info.id.clone()), parsed.info.name.clone()].into_iter().flatten() {
                    counts.insert(name, ());
                }
                several.push((parsed.info, parsed.line, rule));
            }
        }
    }
    for (info, line, rule) in several {
        let at = set.correlations.len();
        let wrong = |why: String| fault(&info.file, Some(line), why);
        let mut group_by = Vec::new();
        for (number, reference) in rule.rules.iter().enumerate() {
            let (fed, kinds) = names.get(reference).ok_or_else(|| {
                wrong(if counts.contains_key(reference) {
                    format!("{reference} is a correlation; correlations of correlations are not supported")
                } else {
                    format!("there is no rule {reference}")
                })
            })?;
            let own: Vec<String> = rule.group_by.iter().map(|field| alias(&rule, field, reference)).collect();
            if let Some(field) = own.iter().find(|field| !known(field, kinds)) {
                return Err(wrong(no_field(field, kinds)));
            }
            group_by.push(own);
            let fed = &mut set.rules[*fed];
            fed.feeds.push((at, number));
            fed.info.reports &= rule.generate;
        }
        let shape = shape(&rule).map_err(wrong)?;
        if let Shape::Values(_, fields) = &shape {
            for (field, reference) in fields.iter().zip(&rule.rules) {
                let kinds = &names[reference].1;
                if !known(field, kinds) {
                    return Err(fault(&info.file, Some(line), no_field(field, kinds)));
                }
            }
        }
        let timespan = std::time::Duration::from_secs(rule.timespan.seconds);
        set.correlations.push(Correlation { info, shape, group_by, timespan });
    }
    Ok(set)
}

/// What a field is called in events of the rule `reference`.
fn alias(rule: &CorrelationRule, field: &str, reference: &str) -> String {
    let mapping = rule.aliases.iter().find(|alias| alias.alias == field).map(|alias| &alias.mapping);
    mapping.and_then(|mapping| mapping.get(reference)).map_or_else(|| field.to_owned(), Clone::clone)
}

fn shape(rule: &CorrelationRule) -> Result<Shape, String> {
    let threshold = || match &rule.condition {
        CorrelationCondition::Threshold { predicates, field, .. } => match predicates.as_slice() {
            [(ConditionOperator::Gte, n)] => Ok((*n, field)),
            [(ConditionOperator::Gt, n)] => Ok((n.saturating_add(1), field)),
            _ => Err("a correlation is decided while events still come in: only gte or gt".to_owned()),
        },
        CorrelationCondition::Extended(_) => Err("a condition in words is not supported".to_owned()),
    };
    let bounded = |n: u64| match usize::try_from(n) {
        Ok(n) if (1..=THRESHOLD_MAX).contains(&(n as u64)) => Ok(n),
        _ => Err(format!("a threshold lies between 1 and {THRESHOLD_MAX}")),
    };
    match rule.correlation_type {
        CorrelationType::EventCount => Ok(Shape::Count(bounded(threshold()?.0)?)),
        CorrelationType::ValueCount => {
            let (n, field) = threshold()?;
            let [field] = field.as_deref().unwrap_or_default() else {
                return Err("value_count names one field".to_owned());
            };
            let names = rule.rules.iter().map(|reference| alias(rule, field, reference)).collect();
            Ok(Shape::Values(bounded(n)?, names))
        }
        CorrelationType::Temporal | CorrelationType::TemporalOrdered => {
            // All of them, which is what both types mean without more words.
            if let CorrelationCondition::Threshold { predicates, .. } = &rule.condition
                && !matches!(predicates.as_slice(), [] | [(ConditionOperator::Gte, _)])
            {
                return Err("a temporal correlation needs all of its rules and no threshold".to_owned());
            }
            let ordered = rule.correlation_type == CorrelationType::TemporalOrdered;
            Ok(Shape::All { rules: rule.rules.len(), ordered })
        }
        other => Err(format!("{} is not supported", other.as_str())),
    }
}
