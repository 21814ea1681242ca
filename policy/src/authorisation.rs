use std::sync::LazyLock;

use model::RoleId;

use crate::engine::{Engine, EngineError, MATRIX_MODEL};
use crate::request::Action;

/// The scope of roles that a person holds in the programme.
pub(crate) const PROGRAMME: &str = "programme";
/// The scope of roles that a person holds in a study.
pub(crate) const STUDY: &str = "study";
/// The name of the role that every active person holds in the programme.
const EVERYONE: &str = "person";

const TABLE: &str = include_str!("../authorisation.csv");

/// A line of the authorisation matrix, as a snapshot test prints it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct MatrixRow {
    /// The kind of thing the action is done to.
    pub resource: &'static str,
    /// `programme` or `study`: where the role is held.
    pub scope: &'static str,
    /// The role.
    pub role: RoleId,
    /// The action.
    pub action: Action,
    /// Whether the role allows it.
    pub allowed: bool,
}

/// The whole matrix, resource × role × action, each cell asked of the same enforcer that decides.
/// An error means that no administration can be decided at all.
pub fn authorisation_matrix() -> Result<Vec<MatrixRow>, String> {
    let matrix = matrix()?;
    let mut rows = Vec::new();
    for action in Action::all() {
        for (scope, role) in &matrix.roles {
            let allowed = matrix.allows(scope, role, action).map_err(|e| e.to_string())?;
            let resource = action.resource();
            rows.push(MatrixRow { resource, scope, role: role.clone(), action, allowed });
        }
    }
    rows.sort();
    Ok(rows)
}

pub(crate) struct Matrix {
    engine: Engine,
    /// Every pair of scope and role in the table, in order, each once.
    roles: Vec<(&'static str, RoleId)>,
    everyone: RoleId,
}

/// The matrix, built on first use.
pub(crate) fn matrix() -> Result<&'static Matrix, String> {
    static MATRIX: LazyLock<Result<Matrix, String>> = LazyLock::new(|| Matrix::parse(TABLE));
    MATRIX.as_ref().map_err(Clone::clone)
}

impl Matrix {
    fn parse(table: &str) -> Result<Matrix, String> {
        let mut rules = Vec::new();
        let mut roles = Vec::new();
        for line in table.lines().filter(|l| !l.is_empty() && !l.starts_with('#')) {
            let bad = || format!("the authorisation matrix has a line that is not a rule: {line}");
            let fields: Vec<&str> = line.split(',').map(str::trim).collect();
            let ["p", scope, role, resource, action, effect @ ("allow" | "deny")] = fields[..] else {
                return Err(bad());
            };
            let scope = [PROGRAMME, STUDY].into_iter().find(|s| *s == scope).ok_or_else(bad)?;
            let id: RoleId = role.parse().map_err(|_| bad())?;
            if !Action::all().any(|a| a.name() == action && a.resource() == resource) {
                return Err(bad());
            }
            if !roles.contains(&(scope, id.clone())) {
                roles.push((scope, id));
            }
            rules.push([scope, role, resource, action, effect].map(str::to_owned).to_vec());
        }
        roles.sort();
        let engine =
            Engine::build(MATRIX_MODEL, rules, Vec::new()).map_err(|e: EngineError| e.to_string())?;
        let everyone = RoleId::from_name(EVERYONE).map_err(|e| e.to_string())?;
        Ok(Matrix { engine, roles, everyone })
    }

    pub(crate) fn allows(&self, scope: &str, role: &RoleId, action: Action) -> Result<bool, EngineError> {
        self.engine.allows(&[scope, role.as_str(), action.resource(), action.name()])
    }

    /// The role that every active person holds.
    pub(crate) fn everyone(&self) -> &RoleId {
        &self.everyone
    }

    /// The roles in `scope` that allow `action`.
    pub(crate) fn roles_allowing(&self, scope: &str, action: Action) -> Result<Vec<RoleId>, EngineError> {
        let mut allowing = Vec::new();
        for (_, role) in self.roles.iter().filter(|(s, _)| *s == scope) {
            if self.allows(scope, role, action)? {
                allowing.push(role.clone());
            }
        }
        Ok(allowing)
    }
}
