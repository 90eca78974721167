//! Attempts played by hand against a real database: no worker, no agent.

use std::time::Duration;

use dispatch_worker::domain::attempt::{ExecutionPath, Exit};
use dispatch_worker::domain::change::Snapshot;
use dispatch_worker::domain::ids::WorkerId;
use dispatch_worker::domain::sandbox::{Network, Rung};
use dispatch_worker::store::Store;
use dispatch_worker::store::attempts::{self, Held, Times};
use dispatch_worker::store::carried::AgainFrom;
use dispatch_worker::store::claims::{self, Claimed, Demand, Look, LowWaterMarks};
use dispatch_worker::store::finish::{
    self, AttemptFacts, Disposition, Ender, Finish, Finished, FirstSeq,
};
use tokio_postgres::Client;

use super::db::TestDb;

/// A database with a project `p`.
pub struct Desk {
    pub db: TestDb,
    pub sql: Client,
    pub store: Store,
}

impl Desk {
    pub async fn new() -> Self {
        let db = TestDb::new().await;
        let sql = db.client().await;
        sql.batch_execute("INSERT INTO projects (name, path) VALUES ('p', '/nowhere')")
            .await
            .unwrap();
        let store = Store::connect(&db.url(), 8).unwrap();
        Self { db, sql, store }
    }

    /// A task for agent `a`.
    pub async fn task(&self) -> i64 {
        task_for(&self.sql, "a").await
    }

    /// Claim the next task of agent `a` and begin its attempt.
    pub async fn begin(&self) -> Claimed {
        let claimed = claim(&self.store, &self.sql, "a").await.unwrap();
        begin(&self.store, &claimed).await;
        claimed
    }

    /// End an attempt that left nothing.
    pub async fn end(&self, claimed: &Claimed, disposition: Disposition) {
        let finish = ending(claimed, disposition, None);
        let done = finish::finish(&self.store, &claimed.lease, Ender::Owner, &finish).await;
        assert_eq!(done.unwrap(), Finished::Stored(None));
    }

    /// Its worker is gone: another one ends the attempt.
    pub async fn crash(&self, claimed: &Claimed) {
        let finish = Finish {
            end_kind: "lease_lost",
            facts: None,
            ..ending(claimed, again(), None)
        };
        let rescuer = Ender::Rescuer(Duration::from_secs(1));
        let done = finish::finish(&self.store, &claimed.lease, rescuer, &finish).await;
        assert_eq!(done.unwrap(), Finished::Stored(None));
    }

    /// End an attempt that goes back, so that the next one goes on from what it left.
    pub async fn carry_on(&self, claimed: &Claimed, snapshot: Snapshot) {
        let finish = ending(claimed, again(), Some(snapshot));
        let done = finish::finish(&self.store, &claimed.lease, Ender::Owner, &finish).await;
        assert_eq!(done.unwrap(), Finished::Stored(None));
    }

    /// The first column of the only row, as text.
    pub async fn text(&self, query: &str) -> String {
        let query = format!("SELECT ({query})::text");
        let row = self.sql.query_one(&query, &[]).await.unwrap();
        row.get::<_, Option<String>>(0).unwrap_or_default()
    }

    /// States of the messages sent into a conversation, in order.
    pub async fn inbox(&self, conversation: i64) -> String {
        let states = format!(
            "SELECT string_agg(state, ' ' ORDER BY id) FROM inbox WHERE conversation_id = {conversation}"
        );
        self.text(&states).await
    }

    /// Send a message as the owner, for ada; its id, state and task.
    pub async fn send(&self, target: i64, text: &str) -> (i64, String, Option<i64>) {
        send(&self.sql, target, text).await
    }
}

/// A task for an agent.
pub async fn task_for(sql: &Client, agent: &str) -> i64 {
    let insert = "INSERT INTO tasks (project, input, agent) VALUES ('p', 'x', $1) RETURNING id";
    sql.query_one(insert, &[&agent]).await.unwrap().get(0)
}

/// Send a message as the owner, for ada.
pub async fn send(sql: &Client, target: i64, text: &str) -> (i64, String, Option<i64>) {
    let send = "SELECT * FROM send_message($1, $2, 'ada')";
    let row = sql.query_one(send, &[&target, &text]).await.unwrap();
    (row.get(0), row.get(1), row.get(2))
}

/// Claim the next task of an agent, once what waits behind it was let out.
pub async fn claim(store: &Store, sql: &Client, agent: &str) -> Option<Claimed> {
    sql.batch_execute("SELECT maintain(500); SELECT maintain(500)")
        .await
        .unwrap();
    let demand = [Demand {
        agent: agent.to_owned(),
        free: 1,
    }];
    let marks = LowWaterMarks::default();
    let claimed = claims::claim(store, WorkerId::fresh(), &demand, 1, Look::All, &marks).await;
    claimed.unwrap().pop()
}

/// The conversation of a claimed task.
pub fn conversation_of(claimed: &Claimed) -> i64 {
    claimed.conversation.unwrap_or(claimed.lease.task().0)
}

/// Begin an attempt, as the run of one does.
pub async fn begin(store: &Store, claimed: &Claimed) {
    let confined = (Rung::None, Network::Full);
    let conversation = conversation_of(claimed);
    let begun = attempts::begin(store, claimed, ExecutionPath::Acp, conversation, confined).await;
    assert_eq!(begun.unwrap(), Held::Yes);
}

/// The task is tried again at once.
pub fn again() -> Disposition {
    Disposition::Again {
        wait: Duration::ZERO,
        charged: true,
        reason: "once more".to_owned(),
    }
}

/// The end of an attempt; with a snapshot the next one goes on from there.
pub fn ending(claimed: &Claimed, disposition: Disposition, snapshot: Option<Snapshot>) -> Finish {
    let failed = matches!(disposition, Disposition::Failed | Disposition::Again { .. });
    Finish {
        end_kind: if failed { "failed" } else { "succeeded" },
        error_class: failed.then_some("protocol"),
        error: failed.then(|| "it\n broke".to_owned()),
        output_summary: None,
        events: Vec::new(),
        seq: FirstSeq::AfterStored,
        facts: Some(AttemptFacts {
            agent: claimed.agent.clone(),
            project: claimed.project.clone(),
            conversation: conversation_of(claimed),
            native_session_id: None,
            exit: Exit::default(),
            stop_reason: None,
            usage: None,
            again_from: match (&snapshot, &disposition) {
                (None, Disposition::Again { .. }) => AgainFrom::Base,
                _ => AgainFrom::Snapshot,
            },
            snapshot,
            times: Times::default(),
        }),
        disposition,
    }
}

/// What an attempt left: no file, and objects.
pub fn left(result: &str) -> Snapshot {
    Snapshot {
        base_commit: "base".to_owned(),
        result_tree: "tree".to_owned(),
        result_commit: result.to_owned(),
        result_ref: "refs/dispatch/1/1".to_owned(),
        digest: "d".to_owned(),
        files: Vec::new(),
        notices: Vec::new(),
        pack: Some(b"pack".to_vec()),
    }
}
