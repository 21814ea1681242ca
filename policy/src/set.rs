use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use model::{DatasetId, GrantId, PersonId, RoleId, StudyId, Timestamp};

use crate::authorisation::{STUDY, matrix};
use crate::engine::{Engine, EngineError, STUDY_MODEL};
use crate::request::Action;
use crate::rules::{GrantRule, Grantee, Membership};

/// The most rules that one enforcer holds. Casbin walks all of them for each question, so a study
/// with more is spread over several enforcers, of which a question meets those that can matter.
const BLOCK: usize = 8;

/// The verdict on conditions of use under which a grant counts.
pub(crate) const DUO_PERMITTED: &str = "permitted";
/// The object of the rule that lets members open sessions.
const WORKSPACE: &str = "workspace";
/// An end after every instant, as text.
const NEVER: &str = "~";

/// All memberships and grants of an epoch, compiled. Immutable: a change makes another set, which
/// shares every study that did not change.
#[derive(Clone)]
pub struct PolicySet {
    epoch: u64,
    studies: HashMap<Arc<str>, Arc<StudyRules>>,
}

/// Why rules could not be compiled. The set before stays valid; a set is never half-built.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// Two grants with one identifier.
    #[error("{0} stands twice among the grants; revoke one of them")]
    DuplicateGrant(GrantId),
    /// A rule of another study was handed over for this one.
    #[error("a rule of {other} was handed over for {study}; gather the rules of one study only")]
    WrongStudy {
        /// The study whose rules were to be replaced.
        study: StudyId,
        /// The study that the rule belongs to.
        other: StudyId,
    },
    /// The rule engine failed.
    #[error("the rules of {study} could not be compiled; the rules before stay in force")]
    Engine {
        /// The study.
        study: StudyId,
        /// What failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl PolicySet {
    /// Compiles everything. Cost grows with the number of grants; do it once and then use
    /// [`PolicySet::with_study`].
    pub fn build(
        epoch: u64,
        memberships: &[Membership],
        grants: &[GrantRule],
    ) -> Result<PolicySet, PolicyError> {
        let mut by_study: BTreeMap<&StudyId, (Vec<&Membership>, Vec<&GrantRule>)> = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for membership in memberships {
            by_study.entry(&membership.study).or_default().0.push(membership);
        }
        for grant in grants {
            if !seen.insert(&grant.grant) {
                return Err(PolicyError::DuplicateGrant(grant.grant.clone()));
            }
            by_study.entry(&grant.study).or_default().1.push(grant);
        }
        let mut studies = HashMap::with_capacity(by_study.len());
        for (study, (memberships, grants)) in by_study {
            let rules = StudyRules::build(study, &memberships, &grants)?;
            studies.insert(Arc::from(study.as_str()), Arc::new(rules));
        }
        Ok(PolicySet { epoch, studies })
    }

    /// The same set with the rules of one study replaced by these; the others are shared.
    pub fn with_study(
        &self,
        epoch: u64,
        study: &StudyId,
        memberships: &[Membership],
        grants: &[GrantRule],
    ) -> Result<PolicySet, PolicyError> {
        let foreign = (memberships.iter().map(|m| &m.study))
            .chain(grants.iter().map(|g| &g.study))
            .find(|other| *other != study);
        if let Some(other) = foreign {
            return Err(PolicyError::WrongStudy { study: study.clone(), other: other.clone() });
        }
        let mut seen = BTreeSet::new();
        if let Some(twice) = grants.iter().find(|g| !seen.insert(&g.grant)) {
            return Err(PolicyError::DuplicateGrant(twice.grant.clone()));
        }
        let mut studies = self.studies.clone();
        if memberships.is_empty() && grants.is_empty() {
            studies.remove(study.as_str());
        } else {
            let rules = StudyRules::build(
                study,
                &memberships.iter().collect::<Vec<_>>(),
                &grants.iter().collect::<Vec<_>>(),
            )?;
            studies.insert(Arc::from(study.as_str()), Arc::new(rules));
        }
        Ok(PolicySet { epoch, studies })
    }

    /// The number of the state of the records that these rules were read from.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The roles that a person has in a study; none if not a member, or if there is no such study.
    pub fn roles(&self, person: &PersonId, study: &StudyId) -> &[RoleId] {
        self.study(study).map_or(&[], |rules| rules.roles(person))
    }

    pub(crate) fn study(&self, study: &StudyId) -> Option<&StudyRules> {
        self.studies.get(study.as_str()).map(|rules| &**rules)
    }
}

impl fmt::Debug for PolicySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PolicySet")
            .field("epoch", &self.epoch)
            .field("studies", &self.studies.len())
            .finish_non_exhaustive()
    }
}

/// The rules of one study.
pub(crate) struct StudyRules {
    study: StudyId,
    roles: HashMap<PersonId, Vec<RoleId>>,
    /// The grants by dataset, each with the block in which its rule lies.
    grants: HashMap<DatasetId, Vec<(GrantRule, usize)>>,
    /// The roles that may open sessions, and those that may read what is granted.
    openers: Vec<RoleId>,
    readers: Vec<RoleId>,
    blocks: Vec<Engine>,
}

impl StudyRules {
    fn build(
        study: &StudyId,
        memberships: &[&Membership],
        grants: &[&GrantRule],
    ) -> Result<StudyRules, PolicyError> {
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| PolicyError::Engine {
            study: study.clone(),
            source,
        };
        let mut roles: HashMap<PersonId, Vec<RoleId>> = HashMap::new();
        let mut links = BTreeSet::new();
        for membership in memberships {
            let held = roles.entry(membership.person.clone()).or_default();
            if !held.contains(&membership.role) {
                held.push(membership.role.clone());
            }
            links.insert(vec![membership.person.to_string(), membership.role.to_string(), study.to_string()]);
        }
        let matrix = matrix().map_err(|e| failed(e.into()))?;
        let allowing = |action| matrix.roles_allowing(STUDY, action).map_err(|e| failed(e.into()));
        let openers = allowing(Action::OpenSession)?;
        let readers = allowing(Action::ReadDataset)?;
        for (action, roles) in [(Action::OpenSession, &openers), (Action::ReadDataset, &readers)] {
            for role in roles {
                links.insert(vec![role.to_string(), may(action).to_owned(), study.to_string()]);
            }
        }
        let links: Vec<Vec<String>> = links.into_iter().collect();

        let mut ordered = grants.to_vec();
        ordered.sort_by(|a, b| (&a.dataset, &a.grantee, &a.grant).cmp(&(&b.dataset, &b.grantee, &b.grant)));
        let mut rules = vec![open_rule(study)];
        let mut blocks = Vec::new();
        let mut by_dataset: HashMap<DatasetId, Vec<(GrantRule, usize)>> = HashMap::new();
        for grant in ordered {
            let rule = grant_rule(grant);
            if rules.len() == BLOCK {
                let full = std::mem::replace(&mut rules, Vec::with_capacity(BLOCK));
                blocks.push(Engine::build(STUDY_MODEL, full, links.clone()).map_err(|e| failed(e.into()))?);
            }
            // Grants that say the same make one rule.
            if !rules.contains(&rule) {
                rules.push(rule);
            }
            by_dataset.entry(grant.dataset.clone()).or_default().push((grant.clone(), blocks.len()));
        }
        blocks.push(Engine::build(STUDY_MODEL, rules, links).map_err(|e| failed(e.into()))?);
        Ok(StudyRules { study: study.clone(), roles, grants: by_dataset, openers, readers, blocks })
    }

    pub(crate) fn study(&self) -> &StudyId {
        &self.study
    }

    pub(crate) fn roles(&self, person: &PersonId) -> &[RoleId] {
        self.roles.get(person).map_or(&[], Vec::as_slice)
    }

    /// The roles of the person that let them open sessions.
    pub(crate) fn opening_roles<'a>(&'a self, person: &PersonId) -> impl Iterator<Item = &'a RoleId> {
        self.roles(person).iter().filter(|role| self.openers.contains(role))
    }

    /// The roles of the person that let them read what is granted.
    pub(crate) fn reading_roles<'a>(&'a self, person: &PersonId) -> impl Iterator<Item = &'a RoleId> {
        self.roles(person).iter().filter(|role| self.readers.contains(role))
    }

    /// The grants of a dataset that name the person or one of their roles, whatever the time.
    pub(crate) fn grants_for<'a>(
        &'a self,
        person: &'a PersonId,
        dataset: &DatasetId,
    ) -> impl Iterator<Item = &'a GrantRule> {
        self.candidates(person, dataset).map(|(grant, _)| grant)
    }

    /// Whether the rules let the person open a session.
    pub(crate) fn may_open(&self, person: &PersonId, now: Timestamp) -> Result<bool, EngineError> {
        let Some(block) = self.blocks.first() else { return Ok(false) };
        self.ask(block, person, WORKSPACE, Action::OpenSession, DUO_PERMITTED, now)
    }

    /// Whether the rules let the person read the dataset, given the verdict on conditions of use.
    pub(crate) fn may_read(
        &self,
        person: &PersonId,
        dataset: &DatasetId,
        duo: &str,
        now: Timestamp,
    ) -> Result<bool, EngineError> {
        // Blocks without a rule for this dataset and grantee cannot change the answer: no rule of
        // ours denies but by not allowing.
        let mut blocks: Vec<usize> = self.candidates(person, dataset).map(|(_, block)| *block).collect();
        blocks.sort_unstable();
        blocks.dedup();
        let mut allowed = false;
        for block in blocks.into_iter().filter_map(|i| self.blocks.get(i)) {
            allowed |= self.ask(block, person, dataset.as_str(), Action::ReadDataset, duo, now)?;
        }
        Ok(allowed)
    }

    fn candidates<'a>(
        &'a self,
        person: &'a PersonId,
        dataset: &DatasetId,
    ) -> impl Iterator<Item = &'a (GrantRule, usize)> {
        let roles = self.roles(person);
        self.grants.get(dataset).into_iter().flatten().filter(move |(grant, _)| match &grant.grantee {
            Grantee::Person(grantee) => grantee == person,
            Grantee::Role(role) => roles.contains(role),
        })
    }

    fn ask(
        &self,
        block: &Engine,
        person: &PersonId,
        object: &str,
        action: Action,
        duo: &str,
        now: Timestamp,
    ) -> Result<bool, EngineError> {
        let (study, now) = (self.study.as_str(), now.to_string());
        block.allows(&[person.as_str(), study, object, action.name(), may(action), duo, &now])
    }
}

/// The node in Casbin's graph of roles that stands for being allowed an action; its prefix is none
/// of an identifier, so nothing on record can be taken for it.
const fn may(action: Action) -> &'static str {
    match action {
        Action::OpenSession => "may:open-session",
        Action::ReadDataset => "may:read-dataset",
        Action::Channel(_)
        | Action::ManageWorkspace
        | Action::Deposit
        | Action::IssueCertificate
        | Action::PlayRecording
        | Action::KeepRecord
        | Action::FetchRecord
        | Action::Administer(_) => "may:nothing",
    }
}

fn open_rule(study: &StudyId) -> Vec<String> {
    let (sub, from, act) = (may(Action::OpenSession), Timestamp::MIN, Action::OpenSession);
    rule(sub, study, WORKSPACE, act, from, NEVER)
}

fn grant_rule(grant: &GrantRule) -> Vec<String> {
    let (sub, obj) = (grant.grantee.as_str(), grant.dataset.as_str());
    let (from, to) = (grant.not_before, grant.not_after.to_string());
    rule(sub, &grant.study, obj, Action::ReadDataset, from, &to)
}

/// The columns of `p` in [`STUDY_MODEL`]. Instants are text of a fixed width, whose order is that of
/// time: numbers in a rule would stay text and compare with nothing.
fn rule(
    subject: &str,
    study: &StudyId,
    object: &str,
    action: Action,
    from: Timestamp,
    to: &str,
) -> Vec<String> {
    let from = from.to_string();
    [subject, study.as_str(), object, action.name(), &from, to, "allow"].map(str::to_owned).to_vec()
}
