//! Rows as readers get them: one struct that reads its columns by name, and is the same shape in
//! JSON, so that a column cannot mean one thing in SQL and another on a surface.

/// Declare a struct whose fields are columns of the same name.
#[macro_export]
macro_rules! record {
    ($(#[$meta:meta])* pub struct $name:ident { $($(#[$doc:meta])* pub $field:ident: $type:ty,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
        pub struct $name { $($(#[$doc])* pub $field: $type,)* }

        impl $name {
            fn read(row: &tokio_postgres::Row) -> Result<Self, $crate::store::StoreError> {
                Ok(Self { $($field: row.try_get(stringify!($field))?,)* })
            }
        }
    };
}
