//! A named SQL statement; the name is its file, its metric label and its span.

use std::sync::OnceLock;
use std::time::Duration;

use tokio_postgres::types::Type;

use super::{Params, Typed};

/// A slow statement is waited for this many times longer than a usual one (20 × 30 s).
const SLOW_FACTOR: u32 = 20;

/// One statement of `sql/`.
pub struct Statement {
    /// File name without `.sql`.
    pub name: &'static str,
    /// Its text.
    pub sql: &'static str,
    types: OnceLock<Vec<Type>>,
    pace: Pace,
}

/// How long an answer may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// A few rows, found by an index.
    Usual,
    /// Much to send or to do: the objects of a change, a benchmark's tables.
    Slow,
}

impl Statement {
    /// A statement from its file; use the `statements!` macro.
    pub const fn new(name: &'static str, sql: &'static str, pace: Pace) -> Self {
        Self {
            name,
            sql,
            types: OnceLock::new(),
            pace,
        }
    }

    /// How long its answer is waited for, where a usual one is waited for so long.
    pub(super) fn patience(&self, usual: Duration) -> Duration {
        match self.pace {
            Pace::Usual => usual,
            Pace::Slow => usual * SLOW_FACTOR,
        }
    }

    /// Types of the parameters, read from the casts in the text (`$1::bigint`).
    pub fn types(&self) -> &[Type] {
        self.types.get_or_init(|| parameter_types(self.sql))
    }

    pub(crate) fn typed<'a>(&self, params: Params<'a>) -> Typed<'a> {
        params
            .iter()
            .copied()
            .zip(self.types().iter().cloned())
            .collect()
    }
}

/// Declare the statements of a module and list them in `ALL`, which a test prepares. `, slow` after
/// the file: its answer may take long.
#[macro_export]
macro_rules! statements {
    (@pace) => { $crate::store::statement::Pace::Usual };
    (@pace slow) => { $crate::store::statement::Pace::Slow };
    ($($(#[$doc:meta])* $name:ident = $file:literal $(, $pace:ident)?;)*) => {
        $($(#[$doc])* static $name: $crate::store::Statement =
            $crate::store::Statement::new(
                $file,
                include_str!(concat!("sql/", $file, ".sql")),
                $crate::statements!(@pace $($pace)?),
            );)*
        /// Every statement of this module.
        pub static ALL: &[&$crate::store::Statement] = &[$(&$name),*];
    };
}

fn parameter_types(sql: &str) -> Vec<Type> {
    let mut types: Vec<Option<Type>> = Vec::new();
    for (at, _) in sql.match_indices('$') {
        let rest = &sql[at + 1..];
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let Ok(number) = rest[..digits].parse::<usize>() else {
            continue;
        };
        let Some(cast) = rest[digits..].strip_prefix("::") else {
            continue;
        };
        let end = cast
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .unwrap_or(cast.len());
        let array = cast[end..].starts_with("[]");
        if types.len() < number {
            types.resize(number, None);
        }
        if let Some(slot) = number.checked_sub(1).and_then(|n| types.get_mut(n)) {
            *slot = type_named(&cast[..end], array);
        }
    }
    types
        .into_iter()
        .map(|t| t.unwrap_or(Type::UNKNOWN))
        .collect()
}

fn type_named(name: &str, array: bool) -> Option<Type> {
    let (one, many) = match name {
        "bigint" => (Type::INT8, Type::INT8_ARRAY),
        "integer" => (Type::INT4, Type::INT4_ARRAY),
        "smallint" => (Type::INT2, Type::INT2_ARRAY),
        "text" => (Type::TEXT, Type::TEXT_ARRAY),
        "boolean" => (Type::BOOL, Type::BOOL_ARRAY),
        "uuid" => (Type::UUID, Type::UUID_ARRAY),
        "timestamptz" => (Type::TIMESTAMPTZ, Type::TIMESTAMPTZ_ARRAY),
        "jsonb" => (Type::JSONB, Type::JSONB_ARRAY),
        "numeric" => (Type::NUMERIC, Type::NUMERIC_ARRAY),
        "bytea" => (Type::BYTEA, Type::BYTEA_ARRAY),
        "float8" => (Type::FLOAT8, Type::FLOAT8_ARRAY),
        _ => return None,
    };
    Some(if array { many } else { one })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_come_from_the_casts() {
        let sql = "SELECT $2::text[], $1::bigint WHERE $1 = 1 AND $3::timestamptz IS NULL";
        assert_eq!(
            parameter_types(sql),
            [Type::INT8, Type::TEXT_ARRAY, Type::TIMESTAMPTZ]
        );
    }
}
