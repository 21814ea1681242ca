//! Judges one event after the other.

use std::collections::HashMap;
use std::sync::Arc;

use model::Timestamp;
use rsigma_eval::{Event, EventValue, evaluate_rule};
use serde_json::Value;

use super::correlate::{Hit, Memory};
use super::decoys::Decoys;
use super::rules::{RuleInfo, RuleSet, Shape};
use super::view::View;
use super::{Finding, Subject};

/// Kinds that are never judged: what the detector itself brings about. A rule cannot feed on findings.
const OWN: &[&str] = &["finding", "rules_loaded", "rules_refused"];

/// Kinds that are recorded only about a person who has proved who they are: with a certificate at a
/// door, or in a session that such a certificate opened. Anything else, above all refusals at the
/// doors, can be caused by a stranger who names somebody.
const PROVEN: &[&str] = &[
    "session_opened",
    "session_refused",
    "channel_refused",
    "deposit_started",
    "deposit_refused",
    "admin_refused",
    "audit_read",
    "process_started",
    "connection_attempted",
    "packet_dropped",
    "file_read",
    "activity_overflowed",
];

/// A rule that fits the same subject again within this time is counted and not told, in milliseconds.
const QUIET: i64 = 600_000;
/// The most subjects whose findings are remembered for that.
const TOLD_MAX: usize = 8192;
/// The most findings of one rule about strangers within [`QUIET`]: they can be anybody as often as
/// they like. Findings about people who are known are not limited by it.
const STRANGERS_MAX: u32 = 30;

/// The state of detection: rules, decoys, and what is remembered of the past.
#[derive(Debug)]
pub struct Detector {
    rules: Arc<RuleSet>,
    decoys: Arc<Decoys>,
    memories: Vec<Memory>,
    told: HashMap<Told, (i64, u64)>,
    strangers: HashMap<String, (i64, u32)>,
    unsaid: u64,
}

/// What a finding is known by when it comes again.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Told {
    rule: String,
    person: Option<String>,
    session: Option<String>,
    address: Option<String>,
    agent: Option<String>,
    decoy: Option<String>,
}

impl Detector {
    /// A detector that has seen nothing yet.
    pub fn new(rules: Arc<RuleSet>, decoys: Arc<Decoys>) -> Detector {
        let memories = rules.correlations.iter().map(|_| Memory::default()).collect();
        Detector { rules, decoys, memories, told: HashMap::new(), strangers: HashMap::new(), unsaid: 0 }
    }

    /// Other rules from now on. Correlations that stay as they are remember what they saw.
    pub fn replace_rules(&mut self, rules: Arc<RuleSet>) {
        let mut old: HashMap<&str, (usize, &Shape)> = HashMap::new();
        for (at, rule) in self.rules.correlations.iter().enumerate() {
            old.insert(&rule.info.id, (at, &rule.shape));
        }
        let mut memories = Vec::with_capacity(rules.correlations.len());
        for rule in &rules.correlations {
            let same = old.get(rule.info.id.as_str()).filter(|(at, shape)| {
                **shape == rule.shape && self.rules.correlations[*at].group_by == rule.group_by
            });
            memories.push(same.map(|(at, _)| std::mem::take(&mut self.memories[*at])).unwrap_or_default());
        }
        self.memories = memories;
        self.rules = rules;
    }

    /// Other decoys from now on.
    pub fn replace_decoys(&mut self, decoys: Arc<Decoys>) {
        self.decoys = decoys;
    }

    /// How often a rule fitted and it was not told, because it had been told before or because
    /// strangers had it fit too often.
    pub fn unsaid(&self) -> u64 {
        self.unsaid
    }

    /// Judges the exported event at `index`, the next one in the log.
    pub fn observe(&mut self, index: u64, event: &Value) -> Vec<Finding> {
        let kind = event.pointer("/metadata/event_code").and_then(Value::as_str).unwrap_or_default();
        if OWN.contains(&kind) {
            return Vec::new();
        }
        let decoys = Arc::clone(&self.decoys);
        let decoy = decoys.touched(kind, event);
        let view = View::new(event, kind, decoy);
        let rules = Arc::clone(&self.rules);
        let at = event.get("time").and_then(Value::as_i64).unwrap_or_default();
        let mut who = None;
        let mut findings = Vec::new();
        for rule in rules.of_kind(kind).iter().map(|at| &rules.rules[*at]) {
            if evaluate_rule(&rule.compiled, &view).is_none() {
                continue;
            }
            let subject = who.get_or_insert_with(|| subject(kind, event)).clone();
            for &(correlation, number) in &rule.feeds {
                let counting = &rules.correlations[correlation];
                let Some(key) = key(&view, &counting.group_by[number]) else { continue };
                let value = match &counting.shape {
                    Shape::Values(_, fields) => {
                        fields.get(number).and_then(|field| text(view.get_field(field)))
                    }
                    _ => None,
                };
                let proven = subject.person.as_deref().filter(|_| subject.proven).map(Arc::from);
                let hit = Hit { at, index, who: proven };
                let memory = &mut self.memories[correlation];
                let fit = memory.hit(&counting.shape, counting.timespan, key, number, value, hit);
                if let Some(fit) = fit {
                    // Of several events, the person is whoever did all of them.
                    let proven = fit.who.is_some();
                    let person = fit.who.map(|who| who.to_string());
                    let about = Subject { person, proven, ..subject.clone() };
                    findings.extend(self.tell(&counting.info, fit.evidence, at, about, None, event));
                }
            }
            if rule.info.reports {
                let decoy = decoy.map(|decoy| decoy.id.clone());
                findings.extend(self.tell(&rule.info, vec![index], at, subject, decoy, event));
            }
        }
        findings
    }

    fn tell(
        &mut self,
        rule: &RuleInfo,
        evidence: Vec<u64>,
        at: i64,
        subject: Subject,
        decoy: Option<String>,
        event: &Value,
    ) -> Option<Finding> {
        let said = |pointer: &str| event.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let told = Told {
            rule: rule.id.clone(),
            person: subject.person.clone().filter(|_| subject.proven),
            session: subject.session.clone(),
            address: subject.peer.clone(),
            agent: said("/unmapped/agent"),
            decoy: decoy.clone(),
        };
        if self.told.len() >= TOLD_MAX {
            self.told.retain(|_, (last, _)| at.saturating_sub(*last) < QUIET);
            if self.told.len() >= TOLD_MAX {
                // Rather tell something twice than not at all.
                self.told.clear();
            }
        }
        let repeated = match self.told.get_mut(&told) {
            // Clocks jump: what was told "later" than now is not waited for.
            Some((last, unsaid)) if (0..QUIET).contains(&at.saturating_sub(*last)) => {
                *unsaid += 1;
                self.unsaid += 1;
                return None;
            }
            Some((_, unsaid)) => *unsaid,
            None => 0,
        };
        if told.person.is_none() && !self.admit_stranger(&rule.id, at) {
            self.unsaid += 1;
            return None;
        }
        self.told.insert(told, (at, 0));
        Some(Finding {
            rule: rule.id.clone(),
            name: rule.name.clone(),
            title: rule.title.clone(),
            title_ja: rule.title_ja.clone(),
            level: rule.level,
            tags: rule.tags.clone(),
            evidence,
            at: Timestamp::from_millis(at),
            subject,
            decoy,
            repeated,
        })
    }

    fn admit_stranger(&mut self, rule: &str, at: i64) -> bool {
        let (since, count) = self.strangers.entry(rule.to_owned()).or_insert((at, 0));
        if !(0..QUIET).contains(&at.saturating_sub(*since)) {
            (*since, *count) = (at, 0);
        }
        *count += 1;
        *count <= STRANGERS_MAX
    }
}

/// Whom an event is about, and whether that is proven.
fn subject(kind: &str, event: &Value) -> Subject {
    let said = |pointer: &str| event.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    let person = said("/actor/user/uid");
    let proven = person.is_some() && PROVEN.contains(&kind);
    Subject {
        // Who is merely named at a door is not who the finding is about.
        person: person.filter(|_| proven),
        session: said("/actor/session/uid"),
        study: said("/unmapped/study"),
        peer: said("/src_endpoint/ip"),
        proven,
    }
}

/// The values that a correlation groups by; an event that lacks one belongs to no group.
fn key(view: &View<'_>, fields: &[String]) -> Option<Vec<String>> {
    fields.iter().map(|field| text(view.get_field(field))).collect()
}

fn text(value: Option<EventValue<'_>>) -> Option<String> {
    value.as_ref().and_then(EventValue::as_str).map(|text| text.into_owned())
}
