//! A named SQL statement; the name is its file, its metric label and its span.

use std::sync::OnceLock;

use tokio_postgres::types::Type;

use super::{Params, Typed};

/// One statement of `sql/`.
pub struct Statement {
    /// File name without `.sql`.
    pub name: &'static str,
    /// Its text.
    pub sql: &'static str,
    types: OnceLock<Vec<Type>>,
}

impl Statement {
    /// A statement from its file; use the `statements!` macro.
    pub const fn new(name: &'static str, sql: &'static str) -> Self {
        Self {
            name,
            sql,
            types: OnceLock::new(),
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

/// Declare the statements of a module and list them in `ALL`, which a test prepares.
#[macro_export]
macro_rules! statements {
    ($($(#[$doc:meta])* $name:ident = $file:literal;)*) => {
        $($(#[$doc])* static $name: $crate::store::Statement =
            $crate::store::Statement::new($file, include_str!(concat!("sql/", $file, ".sql")));)*
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
