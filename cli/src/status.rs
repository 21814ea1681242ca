use serde_json::Value;

use crate::api::{Api, Url, printable};
use crate::fault::{Exit, Fault};
use crate::home::Home;
use crate::{Surroundings, args, login, say, tls};

/// `sekisho status`: asks the broker how it is. Needs its authority's certificate, no login.
pub async fn status(
    around: &Surroundings,
    home: &dyn Fn() -> Result<Home, Fault>,
    args: &args::Status,
) -> Result<(), Fault> {
    let (url, ca) = match &args.dir {
        Some(dir) => {
            let node = crate::up::Node::at(dir)?;
            (node.api_url()?, node.authority()?)
        }
        None => {
            let home = home()?;
            let missing =
                || Fault::new(Exit::Refused, "not_logged_in", say!(NotLoggedIn)).todo(say!(NotLoggedInTodo));
            let named =
                args.api.clone().map(Ok).or_else(|| home.profile().map(|p| p.map(|p| p.api)).transpose());
            let url = Url::parse(&named.ok_or_else(missing)??)?;
            (url, login::authority(&home)?.ok_or_else(missing)?)
        }
    };
    let config = tls::trusting(&ca, None).map_err(|e| Fault::failed("tls", say!(BadAnswer)).because(&e))?;
    let api = Api::new(url, config);
    let health: Value = api.get("/v1/health").await.map_err(|e| e.into_fault(api.url()))?;

    let well = is_well(&health);
    if around.json {
        around.print_json(&health);
    } else {
        let at = api.url();
        around.print(&if well { say!(Healthy, at = at) } else { say!(Unhealthy, at = at) });
        for (name, value) in lines("", &health) {
            around.line(&format!("  {name:<24} {value}"));
        }
    }
    if well { Ok(()) } else { Err(Fault::failed("unhealthy", say!(Unhealthy, at = api.url()))) }
}

/// Well unless it says otherwise: a state other than a good one, or a false.
fn is_well(health: &Value) -> bool {
    match health.get("status").or_else(|| health.get("ok")) {
        Some(Value::Bool(ok)) => *ok,
        Some(Value::String(state)) => matches!(state.as_str(), "ok" | "healthy" | "serving"),
        _ => true,
    }
}

fn lines(prefix: &str, value: &Value) -> Vec<(String, String)> {
    let Value::Object(fields) = value else { return vec![(prefix.to_owned(), plain(value))] };
    let named = |name: &str| {
        if prefix.is_empty() { printable(name) } else { format!("{prefix}.{}", printable(name)) }
    };
    fields.iter().flat_map(|(name, value)| lines(&named(name), value)).collect()
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => printable(text),
        other => printable(&other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_inside_is_named_by_its_way() {
        let health = json!({"status": "ok", "siem": {"lag": 3, "peer": "a\nb"}});
        assert!(is_well(&health));
        let text: Vec<String> = lines("", &health).into_iter().map(|(n, v)| format!("{n}={v}")).collect();
        assert_eq!(text, ["siem.lag=3", "siem.peer=a b", "status=ok"]);
        assert!(!is_well(&json!({"ok": false})));
        assert!(!is_well(&json!({"status": "degraded"})));
    }
}
