//! A git host: repositories over HTTP for whoever knows the password, by git's own `http-backend`.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;

use super::repo::git;

/// The one login that may come in.
const LOGIN: &str = "worker:s3cret-of-git";

/// The host; gone when dropped.
pub(crate) struct GitServer {
    address: SocketAddr,
    _running: JoinSet<()>,
}

#[derive(Clone)]
struct Served {
    root: PathBuf,
    program: PathBuf,
}

impl GitServer {
    /// Serve what is below this directory.
    pub(crate) async fn new(root: &Path) -> Self {
        let program = PathBuf::from(git(root, &["--exec-path"])).join("git-http-backend");
        let served = Served {
            root: root.to_owned(),
            program,
        };
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
        let listener = listener.await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(serve).with_state(served);
        let mut running = JoinSet::new();
        running.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self {
            address,
            _running: running,
        }
    }

    /// Where the repository of this name is.
    pub(crate) fn url(&self, name: &str) -> String {
        format!("http://{}/{name}", self.address)
    }

    /// The settings of an operator whose git knows the password, in this directory.
    pub(crate) fn settings(&self, dir: &Path) -> PathBuf {
        let store = dir.join("git-credentials");
        std::fs::write(&store, format!("http://{LOGIN}@{}\n", self.address)).unwrap();
        let config = dir.join("gitconfig");
        let helper = format!(
            "[credential]\n\thelper = \"store --file={}\"\n",
            store.display()
        );
        std::fs::write(&config, helper).unwrap();
        config
    }
}

async fn serve(State(served): State<Served>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let wanted = base64::engine::general_purpose::STANDARD.encode(LOGIN);
    let given = head.headers.get(header::AUTHORIZATION);
    if given.is_none_or(|given| given.as_bytes() != format!("Basic {wanted}").as_bytes()) {
        let ask = [(header::WWW_AUTHENTICATE, "Basic realm=\"git\"")];
        return (StatusCode::UNAUTHORIZED, ask, "no").into_response();
    }
    let body = to_bytes(body, usize::MAX).await.unwrap();
    let text = |name| {
        let value = head.headers.get(name);
        value.map_or("", |value| value.to_str().unwrap()).to_owned()
    };
    #[expect(
        clippy::disallowed_methods,
        reason = "git's own program serves the repositories"
    )]
    let mut command = tokio::process::Command::new(&served.program);
    let mut child = command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("GIT_PROJECT_ROOT", &served.root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REMOTE_USER", "worker")
        .env("REQUEST_METHOD", head.method.as_str())
        .env("PATH_INFO", head.uri.path())
        .env("QUERY_STRING", head.uri.query().unwrap_or(""))
        .env("CONTENT_TYPE", text(header::CONTENT_TYPE.as_str()))
        .env("CONTENT_LENGTH", body.len().to_string())
        .env("HTTP_CONTENT_ENCODING", text("content-encoding"))
        .env("GIT_PROTOCOL", text("git-protocol"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let feed = async move {
        // It need not read what it does not want.
        let _closed = stdin.write_all(&body).await;
    };
    let ((), output) = tokio::join!(feed, child.wait_with_output());
    answer(output.unwrap().stdout)
}

/// What a CGI program printed, as a response.
fn answer(printed: Vec<u8>) -> Response {
    let end = printed.windows(4).position(|four| four == b"\r\n\r\n");
    let end = end.expect("a head and a body");
    let mut status = StatusCode::OK;
    let mut headers = HeaderMap::new();
    for line in std::str::from_utf8(&printed[..end]).unwrap().split("\r\n") {
        let (name, value) = line.split_once(": ").unwrap();
        if name == "Status" {
            status = value.split(' ').next().unwrap().parse().unwrap();
        } else {
            let name: header::HeaderName = name.parse().unwrap();
            headers.append(name, value.parse().unwrap());
        }
    }
    let body = Body::from(Bytes::from(printed).slice(end + 4..));
    (status, headers, body).into_response()
}
