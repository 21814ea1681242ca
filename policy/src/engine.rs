//! One Casbin enforcer, built once, never changed, asked with text only.
//!
//! Of Casbin only the plain `Enforcer` is used: its caching one goes on permitting after a
//! revocation. Nothing is reloaded in place, because loading clears first and would leave a moment
//! without rules; a new enforcer is built instead and what it holds is compared with what was meant.

use std::sync::LazyLock;

use casbin::rhai::{Dynamic, ImmutableString};
use casbin::{CoreApi, DefaultModel, Enforcer, MemoryAdapter, MgmtApi, Model};
use futures::FutureExt;

/// Rules of one study: grants, and that members may open sessions.
///
/// The tests run from cheap to dear. `need` is what a role of the person must allow on top of their
/// being a grantee; `duo` is the verdict on the conditions of use. Every column is copied for every
/// rule of every question, so there are no more than the rules need.
pub(crate) const STUDY_MODEL: &str = "
[request_definition]
r = sub, prj, obj, act, need, duo, now
[policy_definition]
p = sub, prj, obj, act, nbf, exp, eft
[role_definition]
g = _, _, _
[policy_effect]
e = some(where (p.eft == allow)) && !some(where (p.eft == deny))
[matchers]
m = r.prj == p.prj && r.obj == p.obj && r.act == p.act && r.duo == \"permitted\" && r.now >= p.nbf && r.now < p.exp && g(r.sub, p.sub, r.prj) && g(r.sub, r.need, r.prj)
";

/// Rows of the authorisation matrix.
pub(crate) const MATRIX_MODEL: &str = "
[request_definition]
r = scope, role, res, act
[policy_definition]
p = scope, role, res, act, eft
[policy_effect]
e = some(where (p.eft == allow)) && !some(where (p.eft == deny))
[matchers]
m = r.act == p.act && r.scope == p.scope && r.role == p.role && r.res == p.res
";

/// Why there is no enforcer, or no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EngineError {
    #[error("the rule engine failed")]
    Casbin(#[from] casbin::Error),
    #[error("the rule engine waited for something although it has nothing to wait for")]
    Pending,
    #[error("the rule engine holds other rules than it was given")]
    Mismatch,
    #[error("an empty field was asked about or given")]
    Empty,
}

pub(crate) struct Engine(Enforcer);

impl Engine {
    /// Builds an enforcer of `rules` (columns of `p`) and `links` (columns of `g`).
    pub(crate) fn build(
        model: &'static str,
        mut rules: Vec<Vec<String>>,
        links: Vec<Vec<String>>,
    ) -> Result<Engine, EngineError> {
        if rules.iter().chain(&links).flatten().any(String::is_empty) {
            return Err(EngineError::Empty);
        }
        let parsed = parsed(model)?;
        rules.push(sentinel(&parsed)?);
        let built = async {
            let mut enforcer = Enforcer::new(parsed, MemoryAdapter::default()).await?;
            enforcer.enable_auto_save(false);
            enforcer.add_policies(rules.clone()).await?;
            if !links.is_empty() {
                enforcer.add_grouping_policies(links.clone()).await?;
            }
            Ok::<_, EngineError>(enforcer)
        };
        // No step of this does I/O, so it is ready at the first poll and needs no runtime.
        let enforcer = built.now_or_never().ok_or(EngineError::Pending)??;
        let same_links = links.is_empty() || enforcer.get_grouping_policy() == links;
        if enforcer.get_policy() != rules || !same_links {
            return Err(EngineError::Mismatch);
        }
        Ok(Engine(enforcer))
    }

    /// Asks with the fields of `r`. An error must be taken for a denial.
    pub(crate) fn allows(&self, request: &[&str]) -> Result<bool, EngineError> {
        if request.iter().any(|field| field.is_empty()) {
            return Err(EngineError::Empty);
        }
        let fields: Vec<Field<'_>> = request.iter().map(|field| Field(field)).collect();
        Ok(self.0.enforce(fields)?)
    }
}

/// The rule that no request meets and that denies. It keeps every enforcer from being empty:
/// without a rule Casbin compares a request with empty text, and permits what equals it.
fn sentinel(model: &DefaultModel) -> Result<Vec<String>, EngineError> {
    let columns = model
        .get_model()
        .get("p")
        .and_then(|section| section.get("p"))
        .map(|assertion| assertion.tokens.len())
        .ok_or(EngineError::Mismatch)?;
    let mut row = vec!["-".to_owned(); columns];
    if let Some(effect) = row.last_mut() {
        *effect = "deny".to_owned();
    }
    Ok(row)
}

/// The models are parsed once; an enforcer starts from a copy.
fn parsed(model: &'static str) -> Result<DefaultModel, EngineError> {
    static STUDY: LazyLock<Option<DefaultModel>> =
        LazyLock::new(|| DefaultModel::from_str(STUDY_MODEL).now_or_never()?.ok());
    match &*STUDY {
        Some(study) if model == STUDY_MODEL => Ok(study.clone()),
        _ => Ok(DefaultModel::from_str(model).now_or_never().ok_or(EngineError::Pending)??),
    }
}

#[derive(Clone, Hash)]
struct Field<'a>(&'a str);

impl From<Field<'_>> for Dynamic {
    fn from(field: Field<'_>) -> Dynamic {
        ImmutableString::from(field.0).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &str = "
[request_definition]
r = sub, obj
[policy_definition]
p = sub, obj, eft
[policy_effect]
e = some(where (p.eft == allow)) && !some(where (p.eft == deny))
[matchers]
m = r.sub == p.sub && r.obj == p.obj
";

    fn row(fields: &[&str]) -> Vec<String> {
        fields.iter().map(|f| (*f).to_owned()).collect()
    }

    #[test]
    fn casbin_alone_permits_empty_text_to_an_empty_policy_and_this_does_not() {
        let bare = async {
            let model = DefaultModel::from_str(PLAIN).await.unwrap();
            Enforcer::new(model, MemoryAdapter::default()).await.unwrap()
        };
        let bare = bare.now_or_never().unwrap();
        assert!(bare.enforce(("", "")).unwrap(), "the pitfall is gone; so may be the guard against it");

        let guarded = Engine::build(PLAIN, Vec::new(), Vec::new()).unwrap();
        assert!(matches!(guarded.allows(&["", ""]), Err(EngineError::Empty)));
        assert!(!guarded.allows(&["-", "-"]).unwrap());
        assert!(!guarded.allows(&["u:alice", "ds:wgs"]).unwrap());
    }

    #[test]
    fn empty_fields_are_refused_on_both_sides() {
        let rules = vec![row(&["u:alice", "", "allow"])];
        assert!(matches!(Engine::build(PLAIN, rules, Vec::new()), Err(EngineError::Empty)));
        let engine = Engine::build(PLAIN, vec![row(&["u:alice", "ds:wgs", "allow"])], Vec::new()).unwrap();
        assert!(engine.allows(&["u:alice", "ds:wgs"]).unwrap());
        assert!(matches!(engine.allows(&["u:alice", ""]), Err(EngineError::Empty)));
    }

    #[test]
    fn a_request_of_another_shape_is_an_error_and_no_answer() {
        let engine = Engine::build(PLAIN, vec![row(&["u:alice", "ds:wgs", "allow"])], Vec::new()).unwrap();
        assert!(matches!(engine.allows(&["u:alice"]), Err(EngineError::Casbin(_))));
    }

    #[test]
    fn rules_that_the_engine_would_not_hold_as_given_are_refused() {
        let twice = vec![row(&["u:alice", "ds:wgs", "allow"]), row(&["u:alice", "ds:wgs", "allow"])];
        assert!(Engine::build(PLAIN, twice, Vec::new()).is_err());
    }

    #[test]
    fn a_denying_rule_outweighs_a_permitting_one() {
        let both = vec![row(&["u:alice", "ds:wgs", "allow"]), row(&["u:alice", "ds:wgs", "deny"])];
        assert!(!Engine::build(PLAIN, both, Vec::new()).unwrap().allows(&["u:alice", "ds:wgs"]).unwrap());
    }

    #[test]
    fn the_text_of_rules_is_never_run() {
        let rules = vec![row(&["true || (1 == 1)", "\"; true //", "allow"])];
        let engine = Engine::build(PLAIN, rules, Vec::new()).unwrap();
        assert!(!engine.allows(&["u:alice", "ds:wgs"]).unwrap());
        assert!(engine.allows(&["true || (1 == 1)", "\"; true //"]).unwrap());
    }
}
