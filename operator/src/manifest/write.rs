//! Puts a shape into a manifest without touching its other lines: comments and order stay.

use serde_json::Value;

use super::{parse, to_yaml};
use crate::crd::ModelShape;

/// Why a shape could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Not in the form that line-wise editing understands.
    #[error(
        "cannot edit document {document}: write spec.model in block style (model: and source: on lines of their own)"
    )]
    Style {
        /// From 1.
        document: usize,
    },
    /// Not YAML.
    #[error("the manifest is not YAML")]
    Yaml(#[from] serde_yaml::Error),
}

/// The text with `spec.model.shape` of the `document`-th (from 0) non-empty document replaced.
///
/// # Errors
/// [`WriteError::Style`] unless the result reads back as the old object with exactly this shape.
pub fn with_shape(text: &str, document: usize, shape: &ModelShape) -> Result<String, WriteError> {
    let mut wanted = parse(text)?;
    let style = WriteError::Style { document: document + 1 };
    let Some(object) = wanted.get_mut(document) else { return Err(style) };
    object["spec"]["model"]["shape"] = serde_json::to_value(shape).unwrap_or(Value::Null);
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let Some(source) = sources(&lines).get(document).copied() else { return Err(style) };
    let indent = indent_of(&lines[source]);
    let pad = " ".repeat(indent);
    remove_shape(&mut lines, source, indent);
    let yaml = to_yaml(shape)?;
    let block = std::iter::once(format!("{pad}shape:")).chain(yaml.lines().map(|line| format!("{pad}  {line}")));
    lines.splice(source + 1..source + 1, block);
    let written = lines.join("\n") + "\n";
    if parse(&written).ok().as_ref() == Some(&wanted) { Ok(written) } else { Err(style) }
}

/// The lines that hold `source:` directly under a `model:` line.
fn sources(lines: &[String]) -> Vec<usize> {
    let is_model = |line: &String| line.trim_end() == format!("{}model:", " ".repeat(indent_of(line)));
    let under = |start: usize| {
        let outer = indent_of(&lines[start]);
        let inner =
            (start + 1..lines.len()).take_while(|index| blank(&lines[*index]) || indent_of(&lines[*index]) > outer);
        inner.into_iter().find(|index| lines[*index].trim_start().starts_with("source:"))
    };
    (0..lines.len()).filter(|index| is_model(&lines[*index])).filter_map(under).collect()
}

/// Drops an older `shape:` beside `source:`, with everything that is deeper than it.
fn remove_shape(lines: &mut Vec<String>, source: usize, indent: usize) {
    let beside = |line: &String| blank(line) || indent_of(line) >= indent;
    let end = (source..lines.len()).find(|index| !beside(&lines[*index])).unwrap_or(lines.len());
    let is_shape = |line: &String| indent_of(line) == indent && line.trim_start().starts_with("shape:");
    let Some(begin) = (source..end).find(|index| is_shape(&lines[*index])) else { return };
    let after = (begin + 1..end).find(|index| !blank(&lines[*index]) && indent_of(&lines[*index]) <= indent);
    lines.drain(begin..after.unwrap_or(end));
}

fn indent_of(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

fn blank(line: &str) -> bool {
    let text = line.trim();
    text.is_empty() || text.starts_with('#')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::validate::ModelSource;
    use crate::shape::published;

    fn shape() -> ModelShape {
        published(&ModelSource::parse("hf://Qwen/Qwen3-30B-A3B").unwrap()).unwrap()
    }

    #[test]
    fn comments_and_order_survive_and_an_older_shape_is_replaced() {
        let text = "# why\nspec:\n  model:\n    source: file:///m # here\n    shape: # old\n      layers: 1\n  replicas: 2 # two\n";
        let written = with_shape(text, 0, &shape()).unwrap();
        assert!(written.starts_with(
            "# why\nspec:\n  model:\n    source: file:///m # here\n    shape:\n      architecture: Qwen3"
        ));
        assert!(written.ends_with("      expertBytes: 9437184\n  replicas: 2 # two\n"), "{written}");
        assert_eq!(with_shape(&written, 0, &shape()).unwrap(), written);
    }

    #[test]
    fn the_right_document_is_edited() {
        let one = "spec:\n  model:\n    source: file:///m\n";
        let written = with_shape(&format!("{one}---\n{one}"), 1, &shape()).unwrap();
        assert!(written.starts_with("spec:\n  model:\n    source: file:///m\n---\n") && written.contains("shape:"));
    }

    #[test]
    fn flow_style_is_refused_rather_than_spoiled() {
        let text = "spec:\n  model: {source: file:///m}\n";
        assert!(matches!(with_shape(text, 0, &shape()), Err(WriteError::Style { document: 1 })));
    }
}
