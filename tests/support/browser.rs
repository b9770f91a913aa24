//! A headless Chromium, driven over its DevTools socket.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, tungstenite::Message};

use super::{PATIENCE, eventually, http::Api};

pub(crate) struct Browser {
    child: Child,
    _profile: tempfile::TempDir,
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    next_id: u64,
    /// Every address that a page asked for.
    pub(crate) requested: Vec<String>,
    /// What pages wrote to their console as an error.
    pub(crate) errors: Vec<String>,
}

impl Browser {
    /// Starts it with one empty page of this size.
    pub(crate) async fn start(width: u32, height: u32) -> Self {
        let profile = tempfile::tempdir().unwrap();
        let mut child = Command::new("chromium")
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"])
            .args(["--no-first-run", "--disable-background-networking", "--disable-sync"])
            .args(["--disable-component-update", "--remote-debugging-port=0"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg(format!("--window-size={width},{height}"))
            .arg("about:blank")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("chromium is installed (test.sh does it)");
        let address = debugger_address(&mut child);
        let pages = eventually("the browser has a page", async || {
            let pages = Api::new(&address, "").get("/json/list").await.1;
            pages.as_array()?.iter().find(|page| page["type"] == "page").cloned()
        })
        .await;
        let url = pages["webSocketDebuggerUrl"].as_str().unwrap();
        let (socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
        let mut browser = Self {
            child,
            _profile: profile,
            socket,
            next_id: 0,
            requested: Vec::new(),
            errors: Vec::new(),
        };
        for domain in ["Page.enable", "Runtime.enable", "Network.enable", "Log.enable"] {
            browser.call(domain, json!({})).await;
        }
        let metrics = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600});
        browser.call("Emulation.setDeviceMetricsOverride", metrics).await;
        browser
    }

    pub(crate) async fn open(&mut self, url: &str) {
        self.call("Page.navigate", json!({"url": url})).await;
        self.until("document.readyState === 'complete'").await;
    }

    /// Evaluates an expression in the page.
    pub(crate) async fn eval(&mut self, expression: &str) -> Value {
        let params = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let answer = self.call("Runtime.evaluate", params).await;
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {answer}");
        answer["result"]["value"].clone()
    }

    /// Waits until an expression is true.
    pub(crate) async fn until(&mut self, expression: &str) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while self.eval(expression).await != json!(true) {
            if tokio::time::Instant::now() > deadline {
                let page = self.eval("document.body.innerText").await;
                panic!("never true: {expression}\nthe page: {page}\nerrors: {:?}", self.errors);
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }

    /// Waits until the page shows this text.
    pub(crate) async fn until_shown(&mut self, text: &str) {
        let needle = json!(text.to_lowercase());
        self.until(&format!("document.body.innerText.toLowerCase().includes({needle})")).await;
    }

    /// Types into a field as a person does.
    pub(crate) async fn fill(&mut self, selector: &str, text: &str) {
        let (selector, text) = (json!(selector), json!(text));
        self.eval(&format!("document.querySelector({selector}).focus()")).await;
        self.eval(&format!("document.querySelector({selector}).value = ''")).await;
        self.call("Input.insertText", json!({"text": text})).await;
    }

    pub(crate) async fn click(&mut self, selector: &str) {
        let selector = json!(selector);
        self.until(&format!("!!document.querySelector({selector})")).await;
        self.eval(&format!("document.querySelector({selector}).click()")).await;
    }

    /// A picture of the page, into the folder that `RIDGEWAY_SCREENSHOTS` names, if it does.
    pub(crate) async fn picture(&mut self, name: &str) {
        use base64::Engine as _;
        let Some(folder) = std::env::var_os("RIDGEWAY_SCREENSHOTS") else { return };
        let shot =
            self.call("Page.captureScreenshot", json!({"captureBeyondViewport": true})).await;
        let bytes = base64::engine::general_purpose::STANDARD
            .decode(shot["data"].as_str().unwrap())
            .unwrap();
        std::fs::write(std::path::Path::new(&folder).join(format!("{name}.png")), bytes).unwrap();
    }

    async fn call(&mut self, method: &str, params: Value) -> Value {
        self.next_id += 1;
        let id = self.next_id;
        let call = json!({"id": id, "method": method, "params": params}).to_string();
        self.socket.send(Message::text(call)).await.unwrap();
        loop {
            let next = tokio::time::timeout(PATIENCE, self.socket.next()).await;
            let message = next.expect("the browser answers").expect("the browser lives").unwrap();
            let Message::Text(text) = message else { continue };
            let value: Value = serde_json::from_str(&text).unwrap();
            if value["id"] == json!(id) {
                assert!(value["error"].is_null(), "{method}: {value}");
                return value["result"].clone();
            }
            self.note(&value);
        }
    }

    fn note(&mut self, event: &Value) {
        let params = &event["params"];
        match event["method"].as_str() {
            Some("Network.requestWillBeSent") => {
                self.requested.push(params["request"]["url"].as_str().unwrap().to_owned());
            }
            Some("Network.webSocketCreated") => {
                self.requested.push(params["url"].as_str().unwrap().to_owned());
            }
            Some("Runtime.exceptionThrown") => self.errors.push(params.to_string()),
            Some("Log.entryAdded") if params["entry"]["level"] == "error" => {
                self.errors.push(params["entry"]["text"].to_string());
            }
            _ => {}
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `DevTools listening on ws://127.0.0.1:PORT/…`
fn debugger_address(child: &mut Child) -> String {
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let address = loop {
        let line = lines.next().expect("the browser says where it listens").unwrap();
        if let Some(url) = line.split("ws://").nth(1) {
            break url.split('/').next().unwrap().to_owned();
        }
    };
    // Keep reading, so that the browser never blocks on its log.
    std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
    address
}
