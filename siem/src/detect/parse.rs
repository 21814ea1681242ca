//! Files of Sigma rules, one document after the other, each fault with its place.

use rsigma_eval::{CompiledRule, compile_rule};
use rsigma_parser::{CorrelationRule, SigmaParserError, SigmaRule, parse_sigma_yaml};

use super::Level;
use super::fields::{fields, kinds, known, no_field};
use super::rules::{FILE_MAX, RuleError, RuleInfo, Text, fault};

/// The most documents in a file.
const DOCUMENTS_MAX: usize = 256;
/// The longest title and identifier, in characters: they stand in every finding.
const TITLE_MAX: usize = 200;
const ID_MAX: usize = 64;
const TAGS_MAX: usize = 16;
/// The longest time of a correlation, in seconds: it bounds what it remembers.
const TIMESPAN_MAX: u64 = 7 * 86_400;
/// The most rules that a correlation brings together, and fields it groups by.
const REFERENCES_MAX: usize = 16;

/// A rule that stands by itself, or one that counts others.
pub(super) enum Body {
    Single(Box<CompiledRule>, Vec<&'static str>),
    Several(Box<CorrelationRule>),
}

/// A rule, and the line where it begins.
pub(super) struct Parsed {
    pub(super) info: RuleInfo,
    pub(super) line: usize,
    pub(super) body: Body,
}

/// The rules of a file.
pub(super) fn parse_file(text: &Text) -> Result<Vec<Parsed>, RuleError> {
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

/// What a rule says about itself. Both sorts of rules say the same, in types of their own.
macro_rules! info {
    ($rule:expr, $file:expr) => {{
        let text = |key: &str| $rule.custom_attributes.get(key).and_then(|v| v.as_str()).map(str::to_owned);
        RuleInfo {
            id: $rule.id.clone().unwrap_or_default(),
            name: $rule.name.clone(),
            title: $rule.title.clone(),
            title_ja: text("title_ja"),
            description: $rule.description.clone(),
            description_ja: text("description_ja"),
            level: level($rule.level),
            tags: $rule.tags.clone(),
            falsepositives: $rule.falsepositives.clone(),
            file: $file.to_owned(),
            reports: true,
        }
    }};
}

fn single(file: &str, place: Place<'_>, rule: &SigmaRule, line: usize) -> Result<Parsed, RuleError> {
    let info = info!(rule, file);
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
    let info = info!(rule, file);
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
