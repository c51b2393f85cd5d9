//! Owns a headless Chromium and its driver: started for one test, and ended with it in every case.
//! Must not know the page.

use std::fmt::Debug;
use std::future::Future;
use std::io::ErrorKind;
use std::process::Stdio;
use std::time::{Duration, Instant};

use fantoccini::wd::WebDriverCompatibleCommand;
use fantoccini::{Client, ClientBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::Semaphore;

/// Set it to 1 to require the driver, for example in CI.
const REQUIRE: &str = "BATCHSQL_REQUIRE_CHROMEDRIVER";
/// Limit for every wait; a busy machine may be slow.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Browsers at the same time: each keeps a processor busy while it starts.
static PLACES: Semaphore = Semaphore::const_new(2);

/// Settings of the browser.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Eyes {
    pub(crate) dark: bool,
    pub(crate) phone: bool,
}

pub(crate) struct Browser {
    client: Client,
    driver: Child,
}

/// Runs a test in a browser of its own. Without a driver the test is skipped, unless it is required.
pub(crate) async fn with_browser<F: Future<Output = ()>>(eyes: Eyes, test: impl FnOnce(Browser) -> F) {
    let _place = PLACES.acquire().await.unwrap();
    match Browser::start(eyes).await {
        Some(browser) => test(browser).await,
        None => {
            let required = std::env::var_os(REQUIRE).is_some_and(|value| value == "1");
            assert!(!required, "chromedriver is not on the PATH; install it (Debian package chromium-driver)");
            eprintln!("skipped: chromedriver is not on the PATH; set {REQUIRE}=1 to make this an error");
        }
    }
}

impl Browser {
    async fn start(eyes: Eyes) -> Option<Self> {
        let found = Command::new("chromedriver").arg("--version").stdout(Stdio::null()).status().await;
        match found {
            Err(error) if error.kind() == ErrorKind::NotFound => return None,
            found => assert!(found.unwrap().success(), "chromedriver does not work"),
        }
        let folder = tempfile::Builder::new().prefix("batchsql-chromium").tempdir().unwrap().keep();
        // The shell ends the driver when its input ends, so also when the test is killed. The browser ends with the
        // pipe to its driver and writes files until then, so the folder is removed repeatedly.
        let keeper = r#"chromedriver --port=0 </dev/null & driver=$!; cat >/dev/null; kill -9 "$driver"
            for _ in 1 2 3 4 5 6 7 8 9 10; do rm -rf "$TMPDIR"; sleep 0.2; [ -e "$TMPDIR" ] || exit 0; done"#;
        let mut driver = Command::new("sh")
            .args(["-c", keeper])
            .env("TMPDIR", &folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(driver.stdout.take().expect("its output is piped")).lines();
        let port: u16 = loop {
            let line = lines.next_line().await.unwrap().expect("the driver prints its port");
            if let Some((_, port)) = line.split_once("was started successfully on port ") {
                break port.trim_end_matches('.').parse().unwrap();
            }
        };
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let profile = format!("--user-data-dir={}", folder.join("profile").display());
        let scheme = format!("--blink-settings=preferredColorScheme={}", u8::from(!eyes.dark));
        let mut options = json!({ "args": [
            "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
            "--disable-background-networking", "--disable-component-update", "--remote-debugging-pipe",
            "--window-size=1440,1000", scheme, profile,
        ] });
        if eyes.phone {
            options["mobileEmulation"] = json!({ "deviceMetrics": { "width": 360, "height": 780, "pixelRatio": 2 } });
        }
        let wanted = json!({ "goog:chromeOptions": options, "goog:loggingPrefs": { "browser": "ALL" } });
        let Value::Object(wanted) = wanted else { unreachable!("it was written as an object") };
        let address = format!("http://127.0.0.1:{port}");
        let client = ClientBuilder::new(HttpConnector::new()).capabilities(wanted).connect(&address).await.unwrap();
        Some(Self { client, driver })
    }

    pub(crate) async fn open(&self, url: &str) {
        self.client.goto(url).await.unwrap();
    }

    pub(crate) async fn run(&self, script: &str, arguments: &[Value]) -> Value {
        match self.client.execute(script, arguments.to_vec()).await {
            Ok(value) => value,
            Err(error) => panic!("{script}: {error}"),
        }
    }

    /// The value of an expression.
    pub(crate) async fn eval(&self, expression: &str) -> Value {
        self.run(&format!("return ({expression});"), &[]).await
    }

    /// The visible text of the first element of a selector; empty if it is hidden.
    pub(crate) async fn text(&self, selector: &str) -> String {
        let found = self.run("return document.querySelector(arguments[0]).innerText;", &[selector.into()]).await;
        found.as_str().unwrap().to_owned()
    }

    pub(crate) async fn is_visible(&self, selector: &str) -> bool {
        let script = "const found = document.querySelector(arguments[0]); return !!found && found.checkVisibility();";
        self.run(script, &[selector.into()]).await == Value::Bool(true)
    }

    /// Waits until an expression is true; panics with its last value or error after the limit. An element may not be there yet.
    pub(crate) async fn wait(&self, expression: &str) {
        let begin = Instant::now();
        let script = format!("try {{ return ({expression}); }} catch (error) {{ return String(error); }}");
        loop {
            let value = self.run(&script, &[]).await;
            if value == Value::Bool(true) {
                return;
            }
            assert!(begin.elapsed() < PATIENCE, "{expression} is {value}; the page has:\n{}", self.text("body").await);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub(crate) async fn click(&self, selector: &str) {
        self.client.find(fantoccini::Locator::Css(selector)).await.unwrap().click().await.unwrap();
    }

    pub(crate) async fn write(&self, selector: &str, text: &str) {
        self.client.find(fantoccini::Locator::Css(selector)).await.unwrap().send_keys(text).await.unwrap();
    }

    /// The console messages since the last call.
    pub(crate) async fn console(&self) -> Vec<String> {
        let said = self.client.issue_cmd(Log).await.unwrap();
        said.as_array().unwrap().iter().map(|entry| entry["message"].as_str().unwrap().to_owned()).collect()
    }

    /// Every network request of the page.
    pub(crate) async fn requests(&self) -> Vec<String> {
        let names = self.eval("performance.getEntriesByType('resource').map((entry) => entry.name)").await;
        names.as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect()
    }

    pub(crate) async fn close(mut self) {
        self.client.close().await.unwrap();
        drop(self.driver.stdin.take());
        self.driver.wait().await.unwrap();
    }
}

/// The command for the console log, which is not part of the standard.
#[derive(Debug)]
struct Log;

impl WebDriverCompatibleCommand for Log {
    fn endpoint(&self, base: &url::Url, session: Option<&str>) -> Result<url::Url, url::ParseError> {
        base.join(&format!("session/{}/se/log", session.expect("there is a session")))
    }

    fn method_and_body(&self, _: &url::Url) -> (http::Method, Option<String>) {
        (http::Method::POST, Some(json!({ "type": "browser" }).to_string()))
    }
}
