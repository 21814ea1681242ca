//! A set of rules: its files read, and correlations brought together with the rules they count.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use rsigma_parser::{ConditionOperator, CorrelationCondition, CorrelationRule, CorrelationType};

use super::fields::{known, no_field};
use super::parse::{Body, Parsed, parse_file};
use super::rules::{Correlation, Rule, RuleError, RuleSet, Shape, Text, fault};

/// The most rules of a set.
const RULES_MAX: usize = 4096;
/// The highest threshold of a correlation: it bounds what it remembers.
const THRESHOLD_MAX: u64 = 1000;

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
}

/// Lengths first, so that no two sets of files look alike.
fn hash_file(hasher: &mut blake3::Hasher, text: &Text) {
    for part in [&text.name, &text.text] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
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
