//! The first configuration of each process, and what the options of `up` have to do with it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};

use model::BackendId;
use serde::Serialize;

use crate::args;
use crate::fault::Fault;
use crate::say;
use crate::up::Room;

/// The five institutions that a node's folder stands for when none are named.
const INSTITUTIONS: [(&str, &str); 5] = [
    ("hokkaido", "Hokkaido genome archive"),
    ("tohoku", "Tohoku genome archive"),
    ("kanto", "Kanto genome archive"),
    ("kansai", "Kansai genome archive"),
    ("kyushu", "Kyushu genome archive"),
];

/// The name of the node's own agent.
const AGENT: &str = "main";
/// Where the agent finds its one-time token, in its folder.
pub const ENROL_TOKEN: &str = "enrol.token";

/// Everything the first configurations say.
#[derive(Debug, Clone)]
pub struct Plan {
    trust_domain: String,
    ssh: SocketAddr,
    api: SocketAddr,
    agents: SocketAddr,
    names: Vec<String>,
    addresses: Vec<IpAddr>,
    user: Option<String>,
    /// Numbers of the users who may ask the signer.
    signer_users: Vec<u32>,
    siem: Option<Siem>,
    k: u8,
    backends: Vec<Backend>,
}

#[derive(Debug, Clone, Serialize)]
struct Siem {
    sink: [Sink; 1],
}

/// RFC 5424 over TLS.
#[derive(Debug, Clone, Serialize)]
struct Sink {
    name: &'static str,
    kind: &'static str,
    address: String,
    server_name: String,
}

/// A place where shares lie.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Backend {
    id: BackendId,
    institution: String,
    /// Its folder.
    pub path: PathBuf,
}

impl Plan {
    /// From the options, with their defaults. `user` is who broker and signer become, with its
    /// number, when they are started as root.
    pub fn new(
        args: &args::Up,
        dir: &Path,
        user: Option<(String, u32)>,
        own_uid: u32,
    ) -> Result<Plan, Fault> {
        let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let backends = backends(args, dir)?;
        let k = args.k.unwrap_or(3);
        if k < 2 || usize::from(k) > backends.len() || backends.len() > 255 {
            let fault = Fault::usage(say!(UpFewBackends, n = backends.len(), k = k));
            return Err(fault.todo(say!(UpFewBackendsTodo, k = k)));
        }
        let (ssh, api) = (args.ssh.unwrap_or(local(2222)), args.api.unwrap_or(local(8443)));
        let hosts = if args.hosts.is_empty() { vec!["localhost".to_owned()] } else { args.hosts.clone() };
        let (mut addresses, names): (Vec<_>, Vec<_>) =
            hosts.into_iter().partition(|h| h.parse::<IpAddr>().is_ok());
        addresses.extend([ssh, api].map(|a| here(a).ip().to_string()));
        let mut addresses: Vec<IpAddr> = addresses.iter().filter_map(|a| a.parse().ok()).collect();
        addresses.sort_unstable();
        addresses.dedup();
        let mut signer_users = vec![own_uid];
        signer_users.extend(user.as_ref().map(|(_, uid)| *uid).filter(|uid| *uid != own_uid));
        Ok(Plan {
            trust_domain: args.trust_domain.clone().unwrap_or_else(|| "sekisho.test".to_owned()),
            ssh: fixed_tcp(ssh),
            api: fixed_tcp(api),
            agents: fixed_udp(args.agents.unwrap_or(local(8444))),
            names,
            addresses,
            user: user.map(|(name, _)| name),
            signer_users,
            siem: args.siem.clone().zip(args.siem_name.clone()).map(|(address, server_name)| Siem {
                sink: [Sink { name: "soc", kind: "syslog", address, server_name }],
            }),
            k,
            backends,
        })
    }

    /// The folders of shares.
    pub fn backends(&self) -> &[Backend] {
        &self.backends
    }

    /// The configuration of one process, TOML.
    pub fn config(&self, room: Room) -> Result<String, toml::ser::Error> {
        let body = match room {
            Room::Signer => toml::to_string(&SignerConfig {
                trust_domain: &self.trust_domain,
                socket: "../run/signer.sock",
                allow_uids: &self.signer_users,
                user: self.user.as_deref(),
            }),
            Room::Broker => toml::to_string(&BrokerConfig {
                trust_domain: &self.trust_domain,
                ssh: self.ssh,
                api: self.api,
                agents: self.agents,
                names: &self.names,
                addresses: &self.addresses,
                signer: "../run/signer.sock",
                user: self.user.as_deref(),
                siem: self.siem.as_ref(),
            }),
            Room::Agent => toml::to_string(&AgentConfig {
                agent: AGENT,
                broker: here(self.agents),
                api: format!("https://{}", here(self.api)),
                enrol_token: ENROL_TOKEN,
                k: self.k,
                backends: &self.backends,
            }),
        }?;
        Ok(format!("# First written by `sekisho up`; yours to change. Unknown keys are refused.\n{body}"))
    }
}

#[derive(Serialize)]
struct SignerConfig<'a> {
    trust_domain: &'a str,
    socket: &'a str,
    allow_uids: &'a [u32],
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
}

#[derive(Serialize)]
struct BrokerConfig<'a> {
    trust_domain: &'a str,
    ssh: SocketAddr,
    api: SocketAddr,
    agents: SocketAddr,
    names: &'a [String],
    addresses: &'a [IpAddr],
    signer: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    siem: Option<&'a Siem>,
}

#[derive(Serialize)]
struct AgentConfig<'a> {
    agent: &'a str,
    broker: SocketAddr,
    api: String,
    enrol_token: &'a str,
    k: u8,
    backends: &'a [Backend],
}

fn backends(args: &args::Up, dir: &Path) -> Result<Vec<Backend>, Fault> {
    let backend = |name: &str, institution: &str, path: PathBuf| {
        let id =
            BackendId::from_name(name).map_err(|e| Fault::usage(say!(BadName, text = name)).because(&e))?;
        Ok(Backend { id, institution: institution.to_owned(), path })
    };
    if args.backends.is_empty() {
        return INSTITUTIONS.iter().map(|(n, i)| backend(n, i, dir.join("backends").join(n))).collect();
    }
    let absolute = |path: &PathBuf| {
        std::path::absolute(path)
            .map_err(|e| Fault::failed("io", say!(CannotRead, path = path.display())).because(&e))
    };
    args.backends.iter().map(|(name, path)| backend(name, name, absolute(path)?)).collect()
}

/// Where this machine reaches a door that is open on every address.
fn here(at: SocketAddr) -> SocketAddr {
    let ip = match at.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, at.port())
}

/// A free port in the place of 0: the address must be the same at the next start, for clients and
/// agents keep it.
fn fixed_tcp(at: SocketAddr) -> SocketAddr {
    if at.port() != 0 {
        return at;
    }
    std::net::TcpListener::bind(at).and_then(|l| l.local_addr()).unwrap_or(at)
}

fn fixed_udp(at: SocketAddr) -> SocketAddr {
    if at.port() != 0 {
        return at;
    }
    UdpSocket::bind(at).and_then(|s| s.local_addr()).unwrap_or(at)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};

    fn plan(line: &str) -> Result<Plan, Fault> {
        let cli =
            Cli::try_parse_from(["sekisho", "up", "--dir", "d"].into_iter().chain(line.split_whitespace()));
        let Command::Up(up) = cli.unwrap().command else { panic!("not up") };
        Plan::new(&up, Path::new("/n"), Some(("sekisho".to_owned(), 999)), 0)
    }

    #[test]
    fn defaults_are_a_whole_node() {
        let plan = plan("").unwrap();
        let broker: toml::Table = plan.config(Room::Broker).unwrap().parse().unwrap();
        assert_eq!(broker["ssh"].as_str(), Some("127.0.0.1:2222"));
        assert_eq!(broker["names"].as_array().unwrap()[0].as_str(), Some("localhost"));
        assert_eq!(broker["user"].as_str(), Some("sekisho"));
        assert!(!broker.contains_key("siem"));
        let agent: toml::Table = plan.config(Room::Agent).unwrap().parse().unwrap();
        let backends = agent["backends"].as_array().unwrap();
        assert_eq!(backends.len(), 5);
        assert_eq!(backends[2]["id"].as_str(), Some("backend:kanto"));
        assert_eq!(backends[2]["path"].as_str(), Some("/n/backends/kanto"));
        let signer: toml::Table = plan.config(Room::Signer).unwrap().parse().unwrap();
        assert_eq!(signer["allow_uids"].as_array().unwrap().len(), 2);
    }

    #[test]
    fn options_arrive() {
        let plan = plan(
            "--ssh 0.0.0.0:22 --api 10.0.0.1:443 --host gate.example.org --host 192.0.2.1 \
                         --siem siem:6514 --siem-name siem.example.org --k 2 --backend a=/x --backend b=/y",
        )
        .unwrap();
        let broker: toml::Table = plan.config(Room::Broker).unwrap().parse().unwrap();
        assert_eq!(broker["siem"]["sink"][0]["server_name"].as_str(), Some("siem.example.org"));
        assert_eq!(broker["names"].as_array().unwrap().len(), 1);
        let addresses: Vec<_> =
            broker["addresses"].as_array().unwrap().iter().filter_map(toml::Value::as_str).collect();
        assert_eq!(addresses, ["10.0.0.1", "127.0.0.1", "192.0.2.1"]);
        let agent: toml::Table = plan.config(Room::Agent).unwrap().parse().unwrap();
        assert_eq!((agent["k"].as_integer(), agent["backends"].as_array().unwrap().len()), (Some(2), 2));
    }

    #[test]
    fn port_zero_becomes_a_number_that_stays() {
        let plan = plan("--ssh 127.0.0.1:0 --api 127.0.0.1:0 --agents 127.0.0.1:0").unwrap();
        assert!(plan.ssh.port() != 0 && plan.api.port() != 0 && plan.agents.port() != 0);
    }

    #[test]
    fn too_few_backends_are_refused() {
        assert!(plan("--k 3 --backend a=/x --backend b=/y").is_err());
        assert!(plan("--k 1").is_err());
        assert!(plan("--k 6").is_err());
    }
}
