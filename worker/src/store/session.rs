//! One pooled connection while it is used: each answer is waited for with a bound, and a connection
//! that may still be busy never returns to the pool, where the next one would wait behind it.
//!
//! Nothing is set on the session: behind a pooler in transaction mode it is not ours.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use deadpool_postgres::Object;
use tokio_postgres::Row;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::error::StoreError;
use super::{Params, Statement};
use crate::domain::limits;

/// Whether statements are prepared by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Naming {
    /// Once per connection: only where it is a session.
    Prepared,
    /// Never.
    Unnamed,
}

/// A connection taken from the pool.
pub(super) struct Session {
    client: Option<Object>,
    tls: MakeRustlsConnect,
    patience: Duration,
    /// Something was asked and not answered.
    busy: AtomicBool,
}

impl Session {
    pub(super) fn new(client: Object, tls: MakeRustlsConnect, patience: Duration) -> Self {
        Self {
            client: Some(client),
            tls,
            patience,
            busy: AtomicBool::new(false),
        }
    }

    /// All rows of a statement.
    pub(super) async fn query(
        &self,
        statement: &Statement,
        params: Params<'_>,
        naming: Naming,
    ) -> Result<Vec<Row>, StoreError> {
        let client = self.client.as_ref();
        let client = client.ok_or_else(|| StoreError::no_row(statement.name))?;
        self.busy.store(true, Ordering::Relaxed);
        let asked = async {
            match naming {
                Naming::Prepared => {
                    let prepared = client.prepare_cached(statement.sql).await?;
                    client.query(&prepared, params).await
                }
                Naming::Unnamed => {
                    let typed = statement.typed(params);
                    client.query_typed(statement.sql, &typed).await
                }
            }
        };
        let patience = statement.patience(self.patience);
        let answer = tokio::time::timeout(patience, asked).await.ok();
        self.settle(statement.name, patience, answer).await
    }

    /// Begin or end a transaction.
    pub(super) async fn control(
        &self,
        name: &'static str,
        sql: &'static str,
    ) -> Result<(), StoreError> {
        let client = self.client.as_ref();
        let client = client.ok_or_else(|| StoreError::no_row(name))?;
        self.busy.store(true, Ordering::Relaxed);
        let patience = self.patience;
        let asked = tokio::time::timeout(patience, client.batch_execute(sql));
        let answer = asked.await.ok();
        self.settle(name, patience, answer).await
    }

    /// Close the connection instead of giving it back.
    pub(super) fn close(&mut self) {
        if let Some(client) = self.client.take() {
            drop(Object::take(client));
        }
    }

    async fn settle<T>(
        &self,
        name: &'static str,
        patience: Duration,
        answer: Option<Result<T, tokio_postgres::Error>>,
    ) -> Result<T, StoreError> {
        match answer {
            Some(answer) => {
                self.busy.store(false, Ordering::Relaxed);
                answer.map_err(|error| StoreError::from_pg(name, &error))
            }
            None => {
                self.abandon().await;
                Err(StoreError::silent(name, patience))
            }
        }
    }

    /// Nobody waits for the answer any more: the server should not go on with it. Whether it did
    /// is as unknown as after a connection that broke. It stays busy, and is closed when dropped.
    async fn abandon(&self) {
        let Some(client) = &self.client else {
            return;
        };
        let cancel = client.cancel_token();
        let cancelled = cancel.cancel_query(self.tls.clone());
        match tokio::time::timeout(limits::CANCEL_QUERY_TIMEOUT, cancelled).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "a statement could not be cancelled"),
            Err(_elapsed) => tracing::debug!("a statement could not be cancelled in time"),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.busy.load(Ordering::Relaxed) {
            self.close();
        }
    }
}
