//! The tables as the database sees them. Nothing outside this crate sees these types.

macro_rules! table {
    ($(#[$doc:meta])* $module:ident = $name:literal { $($(#[$attr:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        pub(crate) mod $module {
            use sea_orm::entity::prelude::*;

            #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
            #[sea_orm(table_name = $name)]
            pub struct Model {
                $($(#[$attr])* pub $field: $type,)*
            }

            #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
            pub enum Relation {}

            impl ActiveModelBehavior for ActiveModel {}
        }
    };
}

table! { person = "person" {
    #[sea_orm(primary_key, auto_increment = false)] id: String,
    display_name: String,
    roles: String,
    recorded_at: i64,
    locked_at: Option<i64>,
    locked_by: Option<String>,
    locked_reason: Option<String>,
} }

table! { device_key = "device_key" {
    #[sea_orm(primary_key, auto_increment = false)] public_key: String,
    person: String,
    enrolled_at: i64,
    retired_at: Option<i64>,
} }

table! { enrolment_token = "enrolment_token" {
    #[sea_orm(primary_key, auto_increment = false)] hash: String,
    subject: String,
    expires: i64,
    used_at: Option<i64>,
} }

table! { study = "study" {
    #[sea_orm(primary_key, auto_increment = false)] id: String,
    title: String,
    purposes: String,
    until: i64,
    closed_at: Option<i64>,
    channels: String,
    recording: String,
    supervision: String,
    limits: Option<String>,
} }

table! { workspace = "workspace" {
    #[sea_orm(primary_key, auto_increment = false)] id: String,
    study: String,
    person: String,
    name: String,
    agent: String,
    created_at: i64,
    used_at: i64,
    held_at: Option<i64>,
    held_by: Option<String>,
    held_reason: Option<String>,
} }

table! { membership = "membership" {
    #[sea_orm(primary_key, auto_increment = false)] person: String,
    #[sea_orm(primary_key, auto_increment = false)] study: String,
    #[sea_orm(primary_key, auto_increment = false)] role: String,
} }

table! { dataset = "dataset" {
    #[sea_orm(primary_key, auto_increment = false)] id: String,
    title: String,
    conditions: String,
} }

table! { object = "object" {
    #[sea_orm(primary_key, auto_increment = false)] id: String,
    dataset: String,
    name: String,
    deposited_by: String,
    begun_at: i64,
    state: String,
    size: Option<i64>,
    manifest_root: Option<String>,
    settled_at: Option<i64>,
    backends: Option<String>,
} }

table! { grant = "data_grant" {
    #[sea_orm(primary_key, auto_increment = false)] id: String,
    study: String,
    dataset: String,
    grantee: String,
    not_before: i64,
    not_after: i64,
    granted_by: String,
    revoked_at: Option<i64>,
    revoked_by: Option<String>,
    revoked_reason: Option<String>,
} }

table! { agent = "agent" {
    #[sea_orm(primary_key, auto_increment = false)] id: String,
    enrolled_at: i64,
    last_seen: Option<i64>,
    retired_at: Option<i64>,
    draining_since: Option<i64>,
} }

table! { session = "session" {
    #[sea_orm(primary_key, auto_increment = false)] id: String,
    person: String,
    study: String,
    agent: String,
    opened: i64,
    closed_at: Option<i64>,
    outcome: Option<String>,
} }

table! { recording = "recording" {
    #[sea_orm(primary_key, auto_increment = false)] session: String,
    person: String,
    study: String,
    command: Option<String>,
    begun: i64,
    millis: i64,
    events: i64,
    bytes: i64,
    sha256: String,
    stored_bytes: i64,
    stored_sha256: String,
    elided: i64,
    outcome: String,
    record: i64,
    entry: String,
} }

table! { approval = "approval" {
    #[sea_orm(primary_key, auto_increment = false)] id: String,
    matter: String,
    what: String,
    asked_by: String,
    asked_at: i64,
    expires: i64,
    state: String,
    decided_by: Option<String>,
    decided_at: Option<i64>,
    reason: Option<String>,
} }

table! { decoy = "decoy" {
    #[sea_orm(primary_key, auto_increment = false)] id: String,
    kind: String,
    what: String,
    note: String,
    added_at: i64,
    added_by: String,
} }

table! {
    /// One row: the number of the state of everything that policy depends on.
    policy_epoch = "policy_epoch" {
    #[sea_orm(primary_key, auto_increment = false)] id: i64,
    epoch: i64,
} }

table! {
    /// The house's own records that lie as secret shares, or are on their way there.
    kept = "kept" {
    #[sea_orm(primary_key, auto_increment = false)] object: String,
    kind: String,
    subject: String,
    first: Option<i64>,
    count: Option<i64>,
    begun_at: i64,
    state: String,
    since: i64,
    size: Option<i64>,
    sha256: Option<String>,
    content_root: Option<String>,
    manifest_root: Option<String>,
    record: Option<i64>,
    settled_at: Option<i64>,
} }
