//! The body of a request, byte by byte as the client library writes it. The library tells nobody: it is
//! asked to send the same request to a listener of our own, without a key and without an answer.

use std::future::IntoFuture as _;
use std::net::Ipv4Addr;

use axum::Router;
use axum::body::Bytes;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::routing::post;
use futures::StreamExt as _;
use reqwest::Url;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::{LlmRequest, request};
use crate::domain::limits::{CAPTURE_BYTES_MAX, CAPTURE_TIME_MAX};

/// What the library would send; the error is a reason why that is not known.
pub(super) async fn body(library: &genai::Client, asked: &LlmRequest) -> Result<Vec<u8>, String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
    let listener = listener.map_err(|e| format!("cannot listen: {e}"))?;
    let address = listener
        .local_addr()
        .map_err(|e| format!("cannot listen: {e}"))?;
    // Whoever else is on this machine does not know where to speak.
    let path = format!("/{}", uuid::Uuid::new_v4());
    let (sender, mut heard) = mpsc::channel(1);
    let hear = move |body: Bytes| async move {
        let _first = sender.try_send(body);
        StatusCode::NO_CONTENT
    };
    let app = Router::new()
        .route(&path, post(hear))
        .layer(DefaultBodyLimit::max(CAPTURE_BYTES_MAX));
    let mut server = JoinSet::new();
    server.spawn(axum::serve(listener, app).into_future());
    let url = format!("http://{address}{path}");
    let url = Url::parse(&url).map_err(|e| format!("{url} is no address: {e}"))?;
    let target = request::target(asked, &url, Vec::new());
    let (chat, options) = (request::chat(asked), request::options(asked));
    let send = async {
        let sent = library.exec_chat_stream(target, chat, Some(&options)).await;
        match sent {
            // There is none: it is read so that the request is sent.
            Ok(answer) => answer.stream.for_each(|_| async {}).await,
            Err(error) => tracing::debug!(%error, "a request that is only written has no answer"),
        }
    };
    let wait = async {
        tokio::select! {
            biased;
            body = heard.recv() => body,
            () = send => heard.try_recv().ok(),
        }
    };
    match tokio::time::timeout(CAPTURE_TIME_MAX, wait).await {
        Ok(Some(body)) => Ok(body.to_vec()),
        Ok(None) => Err(format!(
            "it was not sent, or has more than {CAPTURE_BYTES_MAX} bytes"
        )),
        Err(_elapsed) => Err(format!("it was not written within {CAPTURE_TIME_MAX:?}")),
    }
}
