//! A statement of the operator's own, with the rights of the login and nothing else.

use tokio::task::JoinSet;
use tokio_postgres::SimpleQueryMessage;

use super::StoreError;

/// What one statement gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResultSet {
    /// Names of the columns; none when the statement gives no rows.
    pub columns: Vec<String>,
    /// Rows as text; absent: NULL.
    pub rows: Vec<Vec<Option<String>>>,
    /// Rows that were given or touched.
    pub count: u64,
}

/// Run the text, which may hold several statements, on a connection of its own.
pub async fn run(url: &str, text: &str) -> Result<Vec<ResultSet>, StoreError> {
    let (config, tls) = super::parse_url(url)?;
    let connected = config.connect(tls).await;
    let (client, connection) =
        connected.map_err(|e| StoreError::from_pg("connect", &e).at(&super::place(&config)))?;
    let mut driver = JoinSet::new();
    driver.spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "the connection of the statement ended");
        }
    });
    let answers = client.simple_query(text).await;
    drop(client);
    driver.shutdown().await;
    let answers = answers.map_err(|e| StoreError::from_pg("sql", &e))?;
    Ok(collect(&answers))
}

fn collect(answers: &[SimpleQueryMessage]) -> Vec<ResultSet> {
    let mut sets = Vec::new();
    let mut set = ResultSet::default();
    for answer in answers {
        match answer {
            SimpleQueryMessage::RowDescription(columns) => {
                set.columns = columns.iter().map(|c| c.name().to_owned()).collect();
            }
            SimpleQueryMessage::Row(row) => {
                let cells = 0..row.len();
                let cell = |i: usize| row.try_get(i).ok().flatten().map(str::to_owned);
                set.rows.push(cells.map(cell).collect());
            }
            SimpleQueryMessage::CommandComplete(count) => {
                set.count = *count;
                sets.push(std::mem::take(&mut set));
            }
            _ => {}
        }
    }
    sets
}
