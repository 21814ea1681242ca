//! What a decision costs with 10, 10 000 and 100 000 grants on record, against one Casbin enforcer
//! that holds the same grants in one flat list. Prints a table; with `SEKISHO_BENCH_OUT` set it
//! appends a line of JSON for each figure to that file.

use std::io::Write;
use std::time::{Duration, Instant};

use casbin::{CoreApi, DefaultModel, Enforcer, MemoryAdapter, MgmtApi};
use futures::FutureExt;
use model::{DatasetId, GrantId, PersonId, RoleId, StudyId, Timestamp};
use policy::duo::{ConditionSet, Purpose};
use policy::{
    Action, Decision, Facts, GrantRule, Grantee, Membership, PolicySet, Request, StudyFacts, decide,
};

const PER_STUDY: usize = 10;
const PEER: &str = "casbin 2.20, one enforcer";

const FLAT: &str = "
[request_definition]
r = sub, prj, obj, act, now
[policy_definition]
p = sub, prj, obj, act, nbf, exp, eft
[role_definition]
g = _, _, _
[policy_effect]
e = some(where (p.eft == allow)) && !some(where (p.eft == deny))
[matchers]
m = r.prj == p.prj && r.obj == p.obj && r.act == p.act && r.now >= p.nbf && r.now < p.exp && g(r.sub, p.sub, r.prj)
";

struct Records {
    members: Vec<Membership>,
    grants: Vec<GrantRule>,
}

struct Spread {
    p50: f64,
    p99: f64,
    runs: usize,
}

fn main() {
    let mut out = std::env::var_os("SEKISHO_BENCH_OUT").map(|path| {
        std::fs::OpenOptions::new().create(true).append(true).open(path).expect("the file of results opens")
    });
    println!("{:<28} {:>12} {:>12} {:>14} {:>10}", "microseconds", "p50", "p99", "peer p50", "ratio");
    for (name, grants) in
        [("policy/decide/10", 10), ("policy/decide/10k", 10_000), ("policy/decide/100k", 100_000)]
    {
        let records = records(grants);
        let (resident, begun) = (resident(), Instant::now());
        let set = PolicySet::build(1, &records.members, &records.grants).expect("the set builds");
        let (built, size) = (begun.elapsed(), crate::resident().saturating_sub(resident));
        let (ours, changed) = (ours(&set, grants), change(&set, &records));
        drop(set);
        let peer = peer(&records, grants);
        let ratio = peer.p50 / ours.p50;
        println!("{name:<28} {:>12.2} {:>12.2} {:>14.2} {ratio:>10.1}", ours.p50, ours.p99, peer.p50);
        println!(
            "{:<28} built in {built:.2?} and {size} MiB, one study changed in {changed:.2?}; {} and {} decisions",
            "", ours.runs, peer.runs
        );
        if let Some(out) = &mut out {
            for (name, ours, peer) in
                [(name.to_owned(), ours.p50, peer.p50), (format!("{name}/p99"), ours.p99, peer.p99)]
            {
                let ratio = peer / ours;
                writeln!(
                    out,
                    "{{\"name\":\"{name}\",\"value\":{ours:.3},\"unit\":\"us\",\"peer\":\"{PEER}\",\
                     \"peer_value\":{peer:.3},\"ratio\":{ratio:.3}}}"
                )
                .expect("a result is written");
            }
        }
    }
}

/// Memory of this process, in MiB.
fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    pages.split(' ').nth(1).and_then(|p| p.parse::<usize>().ok()).map_or(0, |pages| pages / 256)
}

fn at(secs: i64) -> Timestamp {
    Timestamp::from_secs(secs)
}

fn study(i: usize) -> StudyId {
    StudyId::from_name(&format!("s{i}")).expect("a name")
}

fn dataset(i: usize) -> DatasetId {
    DatasetId::from_name(&format!("d{i}")).expect("a name")
}

fn person(i: usize) -> PersonId {
    PersonId::from_name(&format!("p{i}")).expect("a name")
}

/// Ten grants and three members to a study, as in life.
fn records(grants: usize) -> Records {
    let researcher = RoleId::from_name("researcher").expect("a name");
    let members = (0..grants / PER_STUDY)
        .flat_map(|s| (0..3).map(move |p| (s, p)))
        .map(|(s, p)| Membership { person: person(s + p), study: study(s), role: researcher.clone() });
    let grants = (0..grants).map(|i| GrantRule {
        grant: GrantId::from_name(&format!("g{i}")).expect("a name"),
        grantee: Grantee::Role(researcher.clone()),
        study: study(i / PER_STUDY),
        dataset: dataset(i % PER_STUDY),
        not_before: at(100),
        not_after: at(200),
    });
    Records { members: members.collect(), grants: grants.collect() }
}

fn ours(set: &PolicySet, grants: usize) -> Spread {
    let purposes = vec!["DS:MONDO:0007254".parse::<Purpose>().expect("a purpose")];
    let facts = Facts {
        person: policy::Standing::Active,
        programme_roles: Vec::new(),
        study: Some(StudyFacts {
            active: true,
            until: at(1_000),
            purposes,
            channels: policy::ChannelRules::default(),
            recording: policy::RecordingRule::default(),
            supervision: policy::SupervisionRule::default(),
        }),
        conditions: vec![ConditionSet::parse(&["DS:MONDO:0004992"]).expect("conditions")],
        certificate: policy::CertificateRules::default(),
    };
    measure(grants, |s, d| {
        let request = Request {
            person: person(s),
            study: Some(study(s)),
            dataset: Some(dataset(d)),
            action: Action::ReadDataset,
            purpose: None,
            now: at(150),
        };
        let begun = Instant::now();
        let decision = decide(&request, set, &facts);
        let took = begun.elapsed();
        assert!(matches!(decision, Decision::Permit(_)));
        took
    })
}

/// How long it takes to replace one study of all.
fn change(set: &PolicySet, records: &Records) -> Duration {
    let study = study(0);
    let members: Vec<_> = records.members.iter().filter(|m| m.study == study).cloned().collect();
    let grants: Vec<_> = records.grants.iter().filter(|g| g.study == study).cloned().collect();
    let begun = Instant::now();
    let next = set.with_study(2, &study, &members, &grants).expect("the study builds");
    let took = begun.elapsed();
    drop(next);
    took
}

fn peer(records: &Records, grants: usize) -> Spread {
    let rules = (records.grants.iter())
        .map(|g| {
            let (from, to) = (g.not_before.to_string(), g.not_after.to_string());
            [g.grantee.as_str(), g.study.as_str(), g.dataset.as_str(), "read", &from, &to, "allow"]
                .map(str::to_owned)
                .to_vec()
        })
        .collect();
    let links = (records.members.iter())
        .map(|m| vec![m.person.to_string(), m.role.to_string(), m.study.to_string()])
        .collect();
    let enforcer = async {
        let model = DefaultModel::from_str(FLAT).await?;
        let mut enforcer = Enforcer::new(model, MemoryAdapter::default()).await?;
        enforcer.enable_auto_save(false);
        enforcer.add_policies(rules).await?;
        enforcer.add_grouping_policies(links).await?;
        Ok::<_, casbin::Error>(enforcer)
    };
    let enforcer = enforcer.now_or_never().expect("no I/O").expect("the enforcer builds");
    measure(grants, |s, d| {
        let (who, of, on, now) = (person(s), study(s), dataset(d), at(150));
        let begun = Instant::now();
        // Both sides print the instant and make their fields within the time taken.
        let allowed = enforcer.enforce((who.as_str(), of.as_str(), on.as_str(), "read", now.to_string()));
        let took = begun.elapsed();
        assert!(allowed.expect("an answer"));
        took
    })
}

/// Asks about studies and datasets in a scattered order, 20 000 times or for three seconds, but at
/// least five times. The first ones warm up, as far as there is time for it.
fn measure(grants: usize, mut ask: impl FnMut(usize, usize) -> Duration) -> Spread {
    let studies = grants / PER_STUDY;
    let begun = Instant::now();
    let mut took: Vec<f64> = Vec::new();
    for i in 0..20_100_usize {
        let micros = ask(i * 7_919 % studies, i * 31 % PER_STUDY).as_secs_f64() * 1e6;
        if i >= 100 || begun.elapsed() > Duration::from_secs(1) {
            took.push(micros);
        }
        if begun.elapsed() > Duration::from_secs(3) && took.len() >= 5 {
            break;
        }
    }
    took.sort_by(f64::total_cmp);
    Spread { p50: took[took.len() / 2], p99: took[took.len() * 99 / 100], runs: took.len() }
}
