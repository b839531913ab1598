//! Numbered migrations of the keyspace. A store opens on exactly the schema that it was built with.

use crate::{
    error,
    session::{Cql, applied},
};
use cairn_store_api::{StoreError, StoreErrorKind};

/// The schema that this build works on.
pub const SCHEMA_VERSION: i32 = MIGRATIONS[MIGRATIONS.len() - 1].0;

/// In order; numbers are never reused, texts never edited. Each statement can be repeated.
const MIGRATIONS: [(i32, &str); 1] = [(1, include_str!("../../../../schemas/index/cql/0001_index.cql"))];

const GENERATION: &str = include_str!("../../../../schemas/index/cql/generation.cql");

const VERSIONS: &str = "CREATE TABLE IF NOT EXISTS schema_versions (id int, version int, PRIMARY KEY (id, version))";

/// Statements of a file, without comments.
fn statements(text: &str) -> impl Iterator<Item = String> {
    let lines: String =
        text.lines().filter(|line| !line.trim_start().starts_with("--")).map(|line| line.to_owned() + "\n").collect();
    let all: Vec<String> = lines.split(';').map(|statement| statement.trim().to_owned()).collect();
    all.into_iter().filter(|statement| !statement.is_empty())
}

/// The statement that makes the table of a generation. With an id given, nodes that are asked at once make one table.
pub(crate) fn generation(table: &str, id: uuid::Uuid) -> String {
    statements(GENERATION).collect::<String>().replace("{table}", table).replace("{id}", &id.hyphenated().to_string())
}

/// Makes the keyspace, if it is not there.
pub(crate) async fn create_keyspace(cql: &Cql) -> Result<(), StoreError> {
    let (keyspace, replication) = (&cql.config.keyspace, cql.config.replication());
    cql.define(&format!("CREATE KEYSPACE IF NOT EXISTS {keyspace} WITH replication = {replication}")).await
}

/// Applies the migrations that are missing. Can be run again, also after one that was cut short.
pub(crate) async fn migrate(cql: &Cql) -> Result<i32, StoreError> {
    cql.define(VERSIONS).await?;
    let found = version(cql).await?;
    if found > SCHEMA_VERSION {
        return Err(newer(found));
    }
    let note = cql.prepare("INSERT INTO schema_versions (id, version) VALUES (0, ?) IF NOT EXISTS").await?;
    for (number, text) in MIGRATIONS.into_iter().filter(|(number, _)| *number > found) {
        for statement in statements(text) {
            cql.define(&statement).await?;
        }
        let noted = cql.execute("schema", cql.deadline(), &note, (number,)).await?;
        applied("schema", noted)?;
        tracing::info!(version = number, "the schema of the index was migrated");
    }
    Ok(SCHEMA_VERSION)
}

/// Refuses a keyspace on another schema than this build's.
pub(crate) async fn check(cql: &Cql) -> Result<(), StoreError> {
    let missing =
        || error::new(StoreErrorKind::Invalid, "schema", "there is none in the keyspace: apply the migrations");
    let found = match version(cql).await {
        Err(error) if error.kind() == StoreErrorKind::NotFound => return Err(missing()),
        found => found?,
    };
    match found {
        0 => Err(missing()),
        SCHEMA_VERSION => Ok(()),
        found if found > SCHEMA_VERSION => Err(newer(found)),
        found => {
            let why = format!("it is of version {found} and this build needs {SCHEMA_VERSION}: apply the migrations");
            Err(error::new(StoreErrorKind::Invalid, "schema", &why))
        }
    }
}

fn newer(found: i32) -> StoreError {
    let why = format!("it is of version {found} and this build knows {SCHEMA_VERSION}: a newer build is needed");
    error::new(StoreErrorKind::Invalid, "schema", &why)
}

/// The highest version applied; 0: none.
async fn version(cql: &Cql) -> Result<i32, StoreError> {
    let read = cql.prepare_settled("SELECT version FROM schema_versions WHERE id = 0").await?;
    let rows = cql.select("schema", cql.deadline(), &read, ()).await?;
    let versions = rows.rows::<(i32,)>().map_err(|_| error::unreadable("schema"))?;
    let versions: Result<Vec<_>, _> = versions.collect();
    let versions = versions.map_err(|_| error::unreadable("schema"))?;
    Ok(versions.into_iter().map(|(version,)| version).max().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_split_into_statements_that_can_be_repeated() {
        for (_, text) in MIGRATIONS {
            assert!(statements(text).all(|statement| statement.starts_with("CREATE TABLE IF NOT EXISTS ")));
        }
        assert_eq!(statements(MIGRATIONS[0].1).count(), 4);
        let generation = generation("rows_x", uuid::Uuid::nil());
        assert!(generation.starts_with("CREATE TABLE IF NOT EXISTS rows_x ("));
        assert!(generation.ends_with("WITH ID = 00000000-0000-0000-0000-000000000000"));
        assert!(MIGRATIONS.iter().zip(1..).all(|((number, _), wanted)| *number == wanted));
    }
}
