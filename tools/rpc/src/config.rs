//! Saved configurations, in SPDK's JSON format: the calls that make a node's objects again, subsystem by subsystem.
//!
//! A configuration that SPDK saved also tunes modules that this node has not. Such calls make nothing: where the node refuses
//! one, it is left out and reported, and the load goes on. Anything else that is refused ends the load.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use thiserror::Error;

use crate::client::ClientError;
use crate::error::RpcError;

/// One call of a configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// The method.
    pub method: String,
    /// Its parameters; `None` when absent or null.
    pub params: Option<Value>,
}

impl Call {
    /// The call as an error names it: the method, and the object where it has a name. Parameters may hold secrets.
    fn name(&self) -> String {
        let params = self.params.as_ref().unwrap_or(&Value::Null);
        let object = ["name", "tag"].iter().find_map(|key| params.get(key));
        object.map_or_else(|| self.method.clone(), |object| format!("{} {object}", self.method))
    }
}

/// Why a configuration was not loaded.
#[derive(Debug, Error)]
pub enum LoadError {
    /// No JSON.
    #[error("it is no JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// JSON of another shape.
    #[error("it is no configuration: {0}")]
    Shape(&'static str),
    /// A method that may only be called before the node runs.
    #[error("{0} may only be called at start: load it with gemeld --config")]
    TooLate(String),
    /// The node refused a call.
    #[error("its call {call} was refused: {error}")]
    Refused {
        /// The call.
        call: String,
        /// The node's reason.
        error: ClientError,
    },
    /// The node cannot be asked.
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// A call that was left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// The method, or one of its parameters.
    pub what: String,
    /// Why.
    pub why: String,
}

/// What a load did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Calls that were made.
    pub calls: usize,
    /// What was left out.
    pub left_out: Vec<LeftOut>,
}

/// Methods that only tune, and make nothing.
const TUNING: [&str; 13] = [
    "accel_set_options",
    "bdev_nvme_set_hotplug",
    "bdev_nvme_set_options",
    "bdev_raid_set_options",
    "bdev_set_options",
    "framework_set_scheduler",
    "fsdev_set_opts",
    "iobuf_set_options",
    "nvmf_set_config",
    "nvmf_set_crdt",
    "nvmf_set_max_subsystems",
    "sock_impl_set_options",
    "sock_set_default_impl",
];

/// Parameters of `iscsi_set_options` that only size SPDK's pools.
const POOLS: [&str; 5] = [
    "data_out_pool_size",
    "immediate_data_pool_size",
    "max_large_datain_per_connection",
    "max_r2t_per_connection",
    "pdu_pool_size",
];

/// The calls of a configuration, batches one by one.
///
/// # Errors
/// [`LoadError::Json`] and [`LoadError::Shape`].
pub fn parse(text: &str) -> Result<Vec<Call>, LoadError> {
    let config: Value = serde_json::from_str(text)?;
    let subsystems = config["subsystems"].as_array().ok_or(LoadError::Shape("it has no \"subsystems\""))?;
    let entries = subsystems.iter().filter_map(|subsystem| subsystem["config"].as_array()).flatten();
    let calls = entries.flat_map(|entry| match entry {
        Value::Array(batch) => batch.iter().collect(),
        one => vec![one],
    });
    calls
        .map(|call| {
            let method = call["method"].as_str().ok_or(LoadError::Shape("a call has no \"method\""))?;
            let params = call.get("params").filter(|params| !params.is_null()).cloned();
            Ok(Call { method: method.to_owned(), params })
        })
        .collect()
}

/// A node that a configuration is loaded into.
struct Loader<C, F> {
    check: C,
    make: F,
    loaded: Loaded,
}

impl<C, F> Loader<C, F>
where
    C: Fn(&Call) -> Result<(), RpcError>,
    F: FnMut(&Call) -> Result<Value, ClientError>,
{
    fn methods(&mut self, params: Option<Value>) -> Result<BTreeSet<String>, LoadError> {
        let answer = (self.make)(&Call { method: "rpc_get_methods".to_owned(), params })?;
        let names = answer.as_array().into_iter().flatten().filter_map(Value::as_str);
        Ok(names.map(str::to_owned).collect())
    }

    fn leave_out(&mut self, what: String, why: impl Into<String>) {
        self.loaded.left_out.push(LeftOut { what, why: why.into() });
    }

    fn call(&mut self, call: &Call) -> Result<(), LoadError> {
        match (self.make)(call) {
            Ok(_) => self.loaded.calls += 1,
            Err(ClientError::Refused(error)) if TUNING.contains(&call.method.as_str()) => {
                self.leave_out(call.method.clone(), error.message);
            }
            Err(error) => return Err(LoadError::Refused { call: call.name(), error }),
        }
        Ok(())
    }

    /// Takes out what only sizes pools that the node has not.
    fn without_pools(&mut self, mut call: Call) -> Call {
        if let ("iscsi_set_options", Some(Value::Object(params))) = (call.method.as_str(), &mut call.params) {
            for pool in POOLS.iter().filter(|pool| params.shift_remove(**pool).is_some()) {
                let why = "the node's buffers come from one arena (gemeld --memory)";
                self.loaded
                    .left_out
                    .push(LeftOut { what: format!("iscsi_set_options {pool}"), why: why.to_owned() });
            }
        }
        call
    }

    fn load(mut self, calls: Vec<Call>) -> Result<Loaded, LoadError> {
        let known = self.methods(None)?;
        let now = self.methods(Some(json!({"current": true})))?;
        let starting = now.contains("framework_start_init");
        let calls: Vec<Call> = calls.into_iter().map(|call| self.without_pools(call)).collect();
        // What would be refused in any case is refused before anything is made.
        for call in calls.iter().filter(|call| !TUNING.contains(&call.method.as_str())) {
            if !known.contains(&call.method) {
                self.call(call)?;
            } else if !starting && !now.contains(&call.method) {
                return Err(LoadError::TooLate(call.method.clone()));
            }
            (self.check)(call)
                .map_err(|error| LoadError::Refused { call: call.name(), error: error.into() })?;
        }
        let (first, then): (Vec<Call>, Vec<Call>) =
            calls.into_iter().partition(|call| starting && now.contains(&call.method));
        for call in &first {
            self.call(call)?;
        }
        if starting {
            (self.make)(&Call { method: "framework_start_init".to_owned(), params: None })?;
        }
        for call in &then {
            self.call(call)?;
        }
        Ok(self.loaded)
    }
}

/// Makes the calls of a configuration; into a node that has not begun, what is for the start first. `check` says whether a call is one at all,
/// and `make` calls the node.
///
/// # Errors
/// See [`LoadError`]. What was made before the call that was refused stays.
pub fn load(
    calls: Vec<Call>,
    check: impl Fn(&Call) -> Result<(), RpcError>,
    make: impl FnMut(&Call) -> Result<Value, ClientError>,
) -> Result<Loaded, LoadError> {
    Loader { check, make, loaded: Loaded::default() }.load(calls)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any(_: &Call) -> Result<(), RpcError> {
        Ok(())
    }

    const KNOWN: [&str; 5] = [
        "framework_start_init",
        "iscsi_set_options",
        "bdev_set_options",
        "bdev_malloc_create",
        "rpc_get_methods",
    ];

    /// A node that refuses `bdev_set_options` and remembers the rest.
    fn node(
        now: &'static [&'static str],
        made: &mut Vec<String>,
    ) -> impl FnMut(&Call) -> Result<Value, ClientError> {
        move |call| match call.method.as_str() {
            "rpc_get_methods" => Ok(if call.params.is_some() { json!(now) } else { json!(KNOWN) }),
            "bdev_set_options" => Err(RpcError::refused("no pool").into()),
            method if KNOWN.contains(&method) => {
                made.push(format!("{method} {}", call.params.as_ref().unwrap_or(&Value::Null)));
                Ok(json!(true))
            }
            method => Err(RpcError::method_not_found(method).into()),
        }
    }

    const STARTING: &[&str] =
        &["framework_start_init", "iscsi_set_options", "bdev_set_options", "rpc_get_methods"];
    const RUNNING: &[&str] = &["bdev_malloc_create", "rpc_get_methods"];

    fn saved() -> String {
        json!({"subsystems": [
            {"subsystem": "accel", "config": [{"method": "accel_set_options", "params": {"tasks": 1}}]},
            {"subsystem": "bdev", "config": [
                {"method": "bdev_set_options", "params": {"bdev_io_pool_size": 9}},
                [{"method": "bdev_malloc_create", "params": {"name": "m0"}}],
            ]},
            {"subsystem": "scsi", "config": null},
            {"subsystem": "iscsi", "config": [
                {"method": "iscsi_set_options", "params": {"max_sessions": 4, "pdu_pool_size": 9}},
            ]},
        ]})
        .to_string()
    }

    #[test]
    fn what_is_for_the_start_comes_first_and_what_only_tunes_may_be_left_out() {
        let mut made = Vec::new();
        let loaded = load(parse(&saved()).expect("calls"), any, node(STARTING, &mut made)).expect("loaded");
        assert_eq!(
            made,
            [
                r#"iscsi_set_options {"max_sessions":4}"#,
                "framework_start_init null",
                r#"bdev_malloc_create {"name":"m0"}"#
            ]
        );
        let left_out: Vec<&str> = loaded.left_out.iter().map(|left| left.what.as_str()).collect();
        assert_eq!(left_out, ["iscsi_set_options pdu_pool_size", "bdev_set_options", "accel_set_options"]);
        assert_eq!(loaded.calls, 2);
    }

    #[test]
    fn what_cannot_be_made_is_refused_before_anything_is() {
        let mut made = Vec::new();
        let late =
            load(parse(&saved()).expect("calls"), any, node(RUNNING, &mut made)).expect_err("too late");
        assert!(late.to_string().contains("gemeld --config"), "{late}");
        let calls = vec![
            Call { method: "bdev_malloc_create".to_owned(), params: None },
            Call {
                method: "bdev_nvme_attach_controller".to_owned(),
                params: Some(json!({"name": "n", "psk": "secret"})),
            },
        ];
        let unknown = load(calls, any, node(RUNNING, &mut made)).expect_err("unknown").to_string();
        assert!(
            unknown.contains("bdev_nvme_attach_controller \"n\"") && !unknown.contains("secret"),
            "{unknown}"
        );
        assert!(made.is_empty(), "{made:?}");
    }

    #[test]
    fn a_call_that_cannot_be_read_is_refused_before_another_is_made() {
        let mut made = Vec::new();
        let wrong = |call: &Call| match call.method.as_str() {
            "bdev_malloc_create" => Err(RpcError::invalid_params("block_size is missing")),
            _ => Ok(()),
        };
        let refused = load(parse(&saved()).expect("calls"), wrong, node(STARTING, &mut made));
        let refused = refused.expect_err("no block size").to_string();
        assert!(refused.contains("bdev_malloc_create \"m0\" was refused: block_size"), "{refused}");
        assert!(made.is_empty(), "{made:?}");
    }

    #[test]
    fn other_texts_are_no_configurations() {
        for (text, word) in
            [("{", "no JSON"), ("{}", "subsystems"), (r#"{"subsystems":[{"config":[{}]}]}"#, "method")]
        {
            let error = parse(text).expect_err(text).to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
