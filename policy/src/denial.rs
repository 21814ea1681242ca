use model::{DatasetId, GrantId, PersonId, RoleId, StudyId, Timestamp, WorkspaceName};

use crate::channel::Channel;
use crate::duo::{ConditionSet, Purpose};
use crate::limits::Limit;
use crate::rules::RuleId;

/// Why a request was not permitted. `Display` is the sentence for the person who asked: what
/// happened, why, and what to do. [`Denial::code`] is for programs and never changes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// The person is not on record.
    #[error("you are not on record here; ask a data steward to enrol you")]
    UnknownPerson,
    /// The person is locked.
    #[error("your access is locked; contact the security office of the programme")]
    PersonLocked,
    /// The person has no role in the study, or there is no such study: which of the two is not told.
    #[error("you are not a member of {study}; check its name, or ask a data steward to add you")]
    NotAMember {
        /// The study asked for.
        study: StudyId,
    },
    /// The study was closed or its approval ended.
    #[error("{study} is closed or its approval has ended; ask the review committee to extend it")]
    StudyClosed {
        /// The study asked for.
        study: StudyId,
    },
    /// No grant covers the dataset.
    #[error("no grant lets you use {dataset} in this study; apply to the review committee for it")]
    NoGrant {
        /// The dataset asked for.
        dataset: DatasetId,
    },
    /// No grant covers anything: none was given, or all were revoked.
    #[error("no dataset is granted to {study} at present; apply to the review committee for one")]
    NothingGranted {
        /// The study asked for.
        study: StudyId,
    },
    /// The grant that covered the dataset ended.
    #[error("the permission {grant} ended at {at}; apply to the review committee to extend it")]
    GrantExpired {
        /// The grant that ended last.
        grant: GrantId,
        /// The instant at which it ended.
        at: Timestamp,
    },
    /// The grant that covers the dataset has not begun.
    #[error("the permission {grant} begins at {from}; come back then")]
    GrantNotYet {
        /// The grant that begins first.
        grant: GrantId,
        /// The instant at which it begins.
        from: Timestamp,
    },
    /// The purpose named is none of those for which the study was approved.
    #[error("this study was not approved for the purpose {asked}; name one of the study's purposes")]
    PurposeNotOfStudy {
        /// The purpose asked for.
        asked: Purpose,
    },
    /// The conditions of the dataset exclude the purpose.
    #[error(
        "{dataset} may not be used for {asked}, only under {}; choose another dataset or purpose",
        ConditionSet::list(allowed)
    )]
    PurposeNotAllowed {
        /// The dataset asked for.
        dataset: DatasetId,
        /// The purpose asked for.
        asked: Purpose,
        /// The alternatives under which the dataset may be used.
        allowed: Vec<ConditionSet>,
    },
    /// A condition that only people can judge.
    #[error("the conditions {} need a person's judgement; ask the review committee", codes.join(", "))]
    NeedsReview {
        /// The codes of those conditions.
        codes: Vec<String>,
    },
    /// The study does not permit the channel.
    #[error("{} not open in {study}; {}", channel.words(), channel.advice())]
    ChannelRefused {
        /// The study asked for.
        study: StudyId,
        /// What was asked for.
        channel: Channel,
    },
    /// The certificate does not permit the channel.
    #[error("{} not permitted by your certificate; {}", channel.words(), channel.advice())]
    ChannelNotCertified {
        /// What was asked for.
        channel: Channel,
    },
    /// Nobody can have the channel here.
    #[error("{} not offered by this gate; {}", channel.words(), channel.advice())]
    ChannelNotOffered {
        /// What was asked for.
        channel: Channel,
    },
    /// A connection to another machine than the workspace.
    #[error(
        "this gate leads into workspaces and not to other machines; name localhost and a port that your workspace listens on"
    )]
    ForwardElsewhere,
    /// The study does not give the person more of something.
    #[error("{study} gives each person {most} {limit}{}, and you have {have}; {}",
        if *limit == Limit::Sessions { " at once" } else { "" },
        match limit {
            Limit::Workspaces => "work in one of them, give one up with `sekisho ws remove`, or ask your study's lead",
            _ => "end one, or ask your study's lead",
        })]
    OverLimit {
        /// The study asked for.
        study: StudyId,
        /// Of what.
        limit: Limit,
        /// How many it gives.
        most: u64,
        /// How many there are.
        have: u64,
        /// The workspace asked for.
        workspace: WorkspaceName,
    },
    /// Somebody has stopped the workspace until it is let go on.
    #[error(
        "your workspace {workspace} of {study} was stopped by {by} ({reason}); ask them, or your study's lead, to let it go on (`sekisho ws resume`)"
    )]
    WorkspaceHeld {
        /// Its study.
        study: StudyId,
        /// Its name.
        workspace: WorkspaceName,
        /// Who stopped it.
        by: PersonId,
        /// Why.
        reason: String,
    },
    /// The person lacks the role that the action takes.
    #[error("this takes the role {}, which you do not have; ask someone who has it",
        needed.iter().map(RoleId::as_str).collect::<Vec<_>>().join(" or "))]
    RoleMissing {
        /// The roles of which any one would do.
        needed: Vec<RoleId>,
    },
    /// Somebody would approve what they asked for themselves.
    #[error("you asked for this yourself; it takes somebody else who may do it")]
    OwnRequest,
    /// The request lacks a part, or has one that does not belong.
    #[error("the request is not complete or not consistent ({0}); correct it and ask again")]
    Malformed(&'static str),
    /// The policy could not be evaluated. The text is for operators and is not shown.
    #[error("the request could not be decided and is therefore denied; tell the operators of the programme")]
    Error(String),
}

impl Denial {
    /// A stable code for programs and for the audit log.
    pub const fn code(&self) -> &'static str {
        match self {
            Denial::UnknownPerson => "unknown-person",
            Denial::PersonLocked => "person-locked",
            Denial::NotAMember { .. } => "not-a-member",
            Denial::StudyClosed { .. } => "study-closed",
            Denial::NoGrant { .. } => "no-grant",
            Denial::NothingGranted { .. } => "nothing-granted",
            Denial::GrantExpired { .. } => "grant-expired",
            Denial::GrantNotYet { .. } => "grant-not-yet",
            Denial::PurposeNotOfStudy { .. } => "purpose-not-of-study",
            Denial::PurposeNotAllowed { .. } => "purpose-not-allowed",
            Denial::NeedsReview { .. } => "needs-review",
            Denial::ChannelRefused { .. } => "channel-refused",
            Denial::ChannelNotCertified { .. } => "channel-not-certified",
            Denial::ChannelNotOffered { .. } => "channel-not-offered",
            Denial::ForwardElsewhere => "forward-elsewhere",
            Denial::OverLimit { .. } => "over-limit",
            Denial::WorkspaceHeld { .. } => "workspace-held",
            Denial::RoleMissing { .. } => "role-missing",
            Denial::OwnRequest => "own-request",
            Denial::Malformed(_) => "malformed",
            Denial::Error(_) => "error",
        }
    }

    /// The rule that said no, where one did.
    pub fn rule(&self) -> Option<RuleId> {
        match self {
            Denial::ChannelRefused { study, channel } => Some(RuleId::of_channel(study, *channel, false)),
            Denial::ChannelNotCertified { channel } => Some(RuleId::of_certificate(*channel)),
            Denial::ChannelNotOffered { channel } => Some(RuleId::of_gate(*channel)),
            Denial::ForwardElsewhere => Some(RuleId::of_gate(Channel::LocalForward)),
            Denial::OverLimit { study, limit, .. } => Some(RuleId::of_limit(study, *limit)),
            _ => None,
        }
    }
}
