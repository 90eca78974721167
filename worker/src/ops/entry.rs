//! An operation with its types erased, so that all of them fit into one list.

use futures::FutureExt;
use futures::future::BoxFuture;
use schemars::{Schema, SchemaGenerator};
use serde_json::Value;

use super::{Example, Op, OpContext, OpError, Spec};

type Call = for<'a> fn(&'a OpContext, Value) -> BoxFuture<'a, Result<Value, OpError>>;

/// One operation of the list.
pub struct OpEntry {
    /// Its declaration.
    pub spec: Spec,
    /// Its calls.
    pub examples: fn() -> Vec<Example>,
    /// Add its arguments to a command.
    pub augment: fn(clap::Command) -> clap::Command,
    /// Its input from parsed arguments.
    pub from_matches: fn(&clap::ArgMatches) -> Result<Value, OpError>,
    /// Read an input by its type and write it again without what is absent.
    pub normalize: fn(Value) -> Result<Value, OpError>,
    /// Shape of the input.
    pub input_schema: fn(&mut SchemaGenerator) -> Schema,
    /// Shape of the output.
    pub output_schema: fn(&mut SchemaGenerator) -> Schema,
    /// Do it.
    pub call: Call,
}

impl OpEntry {
    /// The entry of an operation.
    pub const fn of<O: Op>() -> Self {
        Self {
            spec: O::SPEC,
            examples: O::examples,
            augment: O::augment_args,
            from_matches: from_matches::<O>,
            normalize: normalize::<O>,
            input_schema: |schemas| O::json_schema(schemas),
            output_schema: |schemas| schemas.subschema_for::<O::Output>(),
            call: call::<O>,
        }
    }
}

fn from_matches<O: Op>(matches: &clap::ArgMatches) -> Result<Value, OpError> {
    let input = O::from_arg_matches(matches).map_err(|e| OpError::invalid(e.to_string()))?;
    written(&input)
}

fn normalize<O: Op>(input: Value) -> Result<Value, OpError> {
    written(&read::<O>(input)?)
}

fn call<O: Op>(context: &OpContext, input: Value) -> BoxFuture<'_, Result<Value, OpError>> {
    async move {
        let output = read::<O>(input)?.run(context).await?;
        serde_json::to_value(output).map_err(|e| OpError::internal(format!("output: {e}")))
    }
    .boxed()
}

fn read<O: Op>(input: Value) -> Result<O, OpError> {
    serde_json::from_value(input).map_err(|e| OpError::invalid(e.to_string()))
}

fn written<O: Op>(input: &O) -> Result<Value, OpError> {
    let mut value =
        serde_json::to_value(input).map_err(|e| OpError::internal(format!("input: {e}")))?;
    if let Value::Object(fields) = &mut value {
        fields.retain(|_, field| !field.is_null());
    }
    Ok(value)
}
