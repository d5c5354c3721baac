//! What `--format json` prints is what the committed schemas describe.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use serde_json::Value;
use std::fs;
use std::process::Command;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

fn schema(name: &str) -> Value {
    let text = fs::read_to_string(format!("{ROOT}/docs/schemas/{name}.schema.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn output(arguments: &[&str]) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_tdxsim"))
        .args(arguments)
        .current_dir(ROOT)
        .output()
        .unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The part of JSON Schema that our schemas use. Anything else in a schema is an error, so that nothing goes unchecked.
fn check(root: &Value, schema: &Value, value: &Value, at: &str, errors: &mut Vec<String>) {
    let Some(keywords) = schema.as_object() else {
        assert_eq!(*schema, Value::Bool(true), "{at}: a schema that is neither object nor true");
        return;
    };
    for (keyword, rule) in keywords {
        match keyword.as_str() {
            "$schema" | "title" | "description" | "format" | "$defs" | "default" => {}
            "$ref" => {
                let name = rule.as_str().unwrap().strip_prefix("#/$defs/").unwrap();
                check(root, &root["$defs"][name], value, at, errors);
            }
            "type" => {
                let fits = |name: &Value| match name.as_str().unwrap() {
                    "object" => value.is_object(),
                    "array" => value.is_array(),
                    "string" => value.is_string(),
                    "boolean" => value.is_boolean(),
                    "integer" => value.is_i64() || value.is_u64(),
                    "null" => value.is_null(),
                    other => panic!("{at}: type {other}"),
                };
                let any = match rule {
                    Value::Array(names) => names.iter().any(fits),
                    name => fits(name),
                };
                if !any {
                    errors.push(format!("{at}: {value} is not {rule}"));
                }
            }
            "minimum" | "maximum" => {
                let (Some(n), Some(bound)) = (value.as_i64(), rule.as_i64()) else { continue };
                if (keyword == "minimum" && n < bound) || (keyword == "maximum" && n > bound) {
                    errors.push(format!("{at}: {n} is beyond the {keyword} {bound}"));
                }
            }
            "required" => {
                for name in rule.as_array().unwrap() {
                    if value.get(name.as_str().unwrap()).is_none() {
                        errors.push(format!("{at}: {name} is missing"));
                    }
                }
            }
            "properties" => {
                for (name, member) in value.as_object().into_iter().flatten() {
                    match rule.get(name) {
                        Some(schema) => {
                            check(root, schema, member, &format!("{at}.{name}"), errors)
                        }
                        None => errors.push(format!("{at}.{name} is not in the schema")),
                    }
                }
            }
            "items" => {
                for (i, member) in value.as_array().into_iter().flatten().enumerate() {
                    check(root, rule, member, &format!("{at}[{i}]"), errors);
                }
            }
            "const" => {
                if value != rule {
                    errors.push(format!("{at}: {value} is not {rule}"));
                }
            }
            "enum" => {
                if !rule.as_array().unwrap().contains(value) {
                    errors.push(format!("{at}: {value} is none of {rule}"));
                }
            }
            "oneOf" | "anyOf" => {
                let fits = rule.as_array().unwrap().iter().any(|alternative| {
                    let mut errors = Vec::new();
                    check(root, alternative, value, at, &mut errors);
                    errors.is_empty()
                });
                if !fits {
                    errors.push(format!("{at}: {value} fits no alternative"));
                }
            }
            other => panic!("{at}: the schema uses {other}, which this test does not know"),
        }
    }
}

fn errors(name: &str, value: &Value) -> Vec<String> {
    let schema = schema(name);
    let mut errors = Vec::new();
    check(&schema, &schema, value, name, &mut errors);
    errors
}

#[test]
fn every_command_prints_what_its_schema_says() {
    for (name, arguments) in [
        ("list", &["list", "--format", "json"][..]),
        ("run", &["run", "--all", "--format", "json"]),
        ("replay", &["replay", "scenarios/data/dramsim3.trace", "--format", "json"]),
        ("dram", &["dram", "scenarios/data/dramsim3.trace", "--format", "json"]),
        (
            "dram",
            &["dram", "--pattern", "chain", "--requests", "20", "--check", "--format", "json"],
        ),
        ("explain", &["explain", "--format", "json", "0xbd80000000100134", "0xf"]),
        ("explain", &["explain", "--format", "json", "0xC000030000000001"]),
        ("platform", &["platform", "show", "gnr", "--format", "json"]),
        ("invariants", &["invariants", "--effort", "small", "--id", "q10", "--format", "json"]),
        ("invariants", &["invariants", "--group", "v", "--format", "json"]),
    ] {
        let value = output(arguments);
        assert_eq!(errors(name, &value), [""; 0], "{arguments:?}");
        assert_eq!(value["schema"], format!("tdxsim.{name}/1"));
        assert!(value["tool"].as_str().unwrap().starts_with("tdxsim "));
    }
}

#[test]
fn an_output_that_the_schema_does_not_describe_is_seen() {
    let good = output(&["run", "partial-write", "--format", "json"]);
    assert_eq!(errors("run", &good), [""; 0]);
    let spoil = |pointer: &str, value: Value| {
        let mut bad = good.clone();
        *bad.pointer_mut(pointer).unwrap() = value;
        errors("run", &bad)
    };
    assert_eq!(spoil("/runs/0/steps/0/line", Value::from("twelve")).len(), 1);
    assert_eq!(spoil("/runs/0/verdict", Value::from("maybe")).len(), 1);
    assert_eq!(spoil("/seed", Value::from(-1)).len(), 1);
    let mut more = good.clone();
    more["runs"][0]["surprise"] = Value::Null;
    assert_eq!(errors("run", &more).len(), 1);
    let mut less = good.clone();
    less.as_object_mut().unwrap().remove("tool");
    assert_eq!(errors("run", &less).len(), 1);
}
