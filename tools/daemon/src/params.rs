//! Parameters of calls: typed, and strict about what is unknown.

use core::time::Duration;
use rpc::RpcError;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Parameters of a method that has some.
///
/// # Errors
/// A missing, unknown or wrongly typed parameter, named in the message; parameters by position, as SPDK refuses them.
pub fn parse<T: DeserializeOwned>(params: Option<&Value>) -> Result<T, RpcError> {
    let empty = Value::Object(serde_json::Map::new());
    let params = params.unwrap_or(&empty);
    if !params.is_object() {
        return Err(RpcError::invalid_params("Invalid parameters: name them in an object"));
    }
    let parsed = serde_path_to_error::deserialize(params);
    parsed.map_err(|error| RpcError::invalid_params(format!("Invalid parameters: {error}")))
}

/// Checks that parameters are those of a method, and does nothing with them.
///
/// # Errors
/// As [`parse`].
pub fn check<T: DeserializeOwned>(params: Option<&Value>) -> Result<(), RpcError> {
    parse::<T>(params).map(drop)
}

/// Checks that a method without parameters got none.
///
/// # Errors
/// It got some.
pub fn none(params: Option<&Value>) -> Result<(), RpcError> {
    match params {
        None => Ok(()),
        Some(_) => Err(RpcError::invalid_params("Invalid parameters: this method takes none")),
    }
}

/// A time that something may take, in milliseconds: 20 ms to ten minutes.
///
/// # Errors
/// It is outside of that.
pub fn millis(name: &str, millis: u64) -> Result<Duration, RpcError> {
    match millis {
        20..=600_000 => Ok(Duration::from_millis(millis)),
        _ => Err(RpcError::invalid_params(format!("{name} must be 20 to 600000"))),
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Debug, Deserialize)]
    struct Named {
        #[expect(dead_code, reason = "parsed only")]
        name: String,
    }

    #[test]
    fn parameters_have_names() {
        assert!(parse::<Named>(Some(&json!({"name": "d0"}))).is_ok());
        for given in [json!(["d0"]), json!("d0"), json!(null), json!(7)] {
            let refused = parse::<Named>(Some(&given)).expect_err("no names");
            assert!(refused.message.contains("in an object"), "{refused:?}");
        }
    }
}
