//! A headless Chromium, driven by the DevTools protocol over a pair of pipes: no port is opened.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::stat::Mode;
use serde_json::{Value, json};

/// How long the browser may take for anything.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is looked whether a page is as it should be.
const LOOK: Duration = Duration::from_millis(100);

/// A browser with one page, without a network.
pub struct Browser {
    child: Child,
    to: File,
    from: Receiver<Value>,
    /// The page's.
    session: Option<String>,
    last: u64,
    /// What the page reported, and nobody has asked for.
    said: VecDeque<Value>,
}

impl Browser {
    /// Starts one that keeps its things in `dir`.
    pub fn new(dir: &Path) -> Result<Browser> {
        let (into, out) = (dir.join("to-browser"), dir.join("from-browser"));
        for pipe in [&into, &out] {
            nix::unistd::mkfifo(pipe, Mode::S_IRUSR | Mode::S_IWUSR)?;
        }
        let flags = "--headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run \
            --disable-background-networking --disable-component-update --disable-default-apps \
            --disable-sync --remote-debugging-pipe";
        let line =
            format!("exec chromium {flags} --user-data-dir=\"$1/profile\" about:blank 3<\"$2\" 4>\"$3\"");
        let child = Command::new("sh")
            .args(["-c", &line, "sh"])
            .args([dir, &into, &out])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start chromium: run infra/setup")?;
        let to = OpenOptions::new().write(true).open(&into)?;
        let mut out = File::open(&out)?;
        let (sender, from) = channel();
        std::thread::spawn(move || {
            let (mut held, mut piece) = (Vec::new(), vec![0; 64 << 10]);
            while let Ok(n @ 1..) = out.read(&mut piece) {
                held.extend_from_slice(&piece[..n]);
                while let Some(end) = held.iter().position(|byte| *byte == 0) {
                    let message: Vec<u8> = held.drain(..=end).collect();
                    let Ok(message) = serde_json::from_slice(&message[..end]) else { return };
                    if sender.send(message).is_err() {
                        return;
                    }
                }
            }
        });
        let mut browser = Browser { child, to, from, session: None, last: 0, said: VecDeque::new() };
        let target = browser.ask("Target.createTarget", json!({ "url": "about:blank" }))?;
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = browser.ask("Target.attachToTarget", attach)?;
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Network", "Log", "DOM", "CSS"] {
            browser.ask(&format!("{domain}.enable"), json!({}))?;
        }
        let offline =
            json!({ "offline": true, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1 });
        browser.ask("Network.emulateNetworkConditions", offline)?;
        let size = json!({ "width": 1280, "height": 900, "deviceScaleFactor": 1, "mobile": false });
        browser.ask("Emulation.setDeviceMetricsOverride", size)?;
        Ok(browser)
    }

    /// Opens a file as a page, and waits until it is loaded.
    pub fn open(&mut self, file: &Path) -> Result<()> {
        let went = self.ask("Page.navigate", json!({ "url": format!("file://{}", file.display()) }))?;
        ensure!(went.get("errorText").is_none(), "{went}");
        let until = Instant::now() + PATIENCE;
        while self.event("Page.loadEventFired").is_none() {
            let message = self.next(until)?;
            self.said.push_back(message);
        }
        Ok(())
    }

    /// What an expression in the page comes to.
    pub fn value(&mut self, expression: &str) -> Result<Value> {
        let asked = json!({ "expression": expression, "returnByValue": true });
        let answer = self.ask("Runtime.evaluate", asked)?;
        ensure!(answer.get("exceptionDetails").is_none(), "{expression}: {answer}");
        Ok(answer["result"]["value"].clone())
    }

    /// Waits until an expression is text that `fits`; the text.
    pub fn until(&mut self, expression: &str, fits: impl Fn(&str) -> bool) -> Result<String> {
        let until = Instant::now() + PATIENCE;
        loop {
            let value = self.value(expression)?;
            let text = value.as_str().unwrap_or_default();
            if fits(text) {
                return Ok(text.to_owned());
            }
            ensure!(Instant::now() < until, "{expression} stays {value}");
            std::thread::sleep(LOOK);
        }
    }

    /// Clicks into the middle of an element.
    pub fn click(&mut self, selector: &str) -> Result<()> {
        let middle = format!(
            "(() => {{ const box = document.querySelector({}).getBoundingClientRect();
                return [box.x + box.width / 2, box.y + box.height / 2]; }})()",
            json!(selector)
        );
        let at = self.value(&middle)?;
        for kind in ["mousePressed", "mouseReleased"] {
            let click = json!({ "type": kind, "x": at[0], "y": at[1], "button": "left", "clickCount": 1 });
            self.ask("Input.dispatchMouseEvent", click)?;
        }
        Ok(())
    }

    /// The fonts that an element is drawn with, each with how many glyphs of it.
    pub fn fonts(&mut self, selector: &str) -> Result<Vec<(String, u64)>> {
        let root = self.ask("DOM.getDocument", json!({}))?;
        let found = json!({ "nodeId": root["root"]["nodeId"], "selector": selector });
        let node = self.ask("DOM.querySelector", found)?;
        let fonts = self.ask("CSS.getPlatformFontsForNode", json!({ "nodeId": node["nodeId"] }))?;
        let one = |font: &Value| {
            let name = font["familyName"].as_str().unwrap_or_default().to_owned();
            (name, font["glyphCount"].as_f64().unwrap_or_default() as u64)
        };
        Ok(fonts["fonts"].as_array().into_iter().flatten().map(one).collect())
    }

    /// A picture of the page (PNG, Base64).
    pub fn picture(&mut self) -> Result<String> {
        let shot = self.ask("Page.captureScreenshot", json!({ "format": "png" }))?;
        Ok(shot["data"].as_str().context("no picture")?.to_owned())
    }

    /// What the page asked the network for, and what it complained of.
    pub fn asked_and_complained(&self) -> (Vec<String>, Vec<String>) {
        let of = |method: &str, pointer: &str| -> Vec<String> {
            let fits = self.said.iter().filter(|event| event["method"] == method);
            fits.filter_map(|event| event.pointer(pointer)).map(|value| value.to_string()).collect()
        };
        let asked = of("Network.requestWillBeSent", "/params/request/url");
        let thrown = of("Runtime.exceptionThrown", "/params/exceptionDetails");
        (asked, [thrown, of("Log.entryAdded", "/params/entry")].concat())
    }

    fn ask(&mut self, method: &str, params: Value) -> Result<Value> {
        self.last += 1;
        let mut message = json!({ "id": self.last, "method": method, "params": params });
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        self.to.write_all(&bytes)?;
        let until = Instant::now() + PATIENCE;
        loop {
            let answer = self.next(until).with_context(|| format!("no answer to {method}"))?;
            if answer["id"] != self.last {
                self.said.push_back(answer);
                continue;
            }
            ensure!(answer.get("error").is_none(), "{method}: {}", answer["error"]);
            return Ok(answer["result"].clone());
        }
    }

    fn event(&self, method: &str) -> Option<&Value> {
        self.said.iter().find(|event| event["method"] == method)
    }

    fn next(&mut self, until: Instant) -> Result<Value> {
        match self.from.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(message) => Ok(message),
            Err(RecvTimeoutError::Timeout) => bail!("the browser does not answer"),
            Err(RecvTimeoutError::Disconnected) => bail!("the browser is gone"),
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
