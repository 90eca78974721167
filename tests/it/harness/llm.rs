//! A scripted LLM provider, as a process of its own; what its scripts can say is in the head of
//! `fake_llm/main.rs`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use dispatch_worker::config::native_spec::Api;
use serde_json::Value;

/// Longest answer of the stub about itself.
const PATIENCE: Duration = Duration::from_secs(20);

/// A provider; killed when dropped.
pub struct FakeLlm {
    child: Child,
    /// `127.0.0.1:PORT`.
    address: String,
}

impl FakeLlm {
    /// Start one that takes any key.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same with flags.
    #[expect(
        clippy::disallowed_methods,
        reason = "the harness starts the program under test"
    )]
    pub fn start_with(flags: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_fake-llm"))
            .args(flags)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let out = child.stdout.take().unwrap();
        BufReader::new(out).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on http://").unwrap();
        Self {
            address: address.to_owned(),
            child,
        }
    }

    /// Where it speaks a format.
    pub fn base_url(&self, api: Api) -> String {
        let path = match api {
            Api::Openai | Api::OpenaiResponses | Api::Anthropic => "/v1/",
            Api::Gemini => "/v1beta/",
            Api::Ollama => "/",
        };
        format!("http://{}{path}", self.address)
    }

    /// The requests that ended, in the order of their end.
    pub fn ledger(&self) -> Vec<Value> {
        match self.get("/__ledger") {
            Value::Array(entries) => entries,
            other => panic!("the ledger is {other}"),
        }
    }

    /// The bodies of the requests that ended.
    pub fn bodies(&self) -> Vec<Value> {
        self.ledger()
            .into_iter()
            .map(|mut entry| entry["body"].take())
            .collect()
    }

    /// Number of requests that did not end yet.
    pub fn open(&self) -> usize {
        usize::try_from(self.get("/__open").as_u64().unwrap()).unwrap()
    }

    fn get(&self, path: &str) -> Value {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: stub\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        serde_json::from_str(body).unwrap()
    }
}

impl Drop for FakeLlm {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The line of a prompt that is this script, a JSON array of elements.
pub fn script(elements: &Value) -> String {
    assert!(elements.is_array(), "a script is an array: {elements}");
    format!("SCRIPT {elements}")
}
