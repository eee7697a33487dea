//! Chat templates: code from a model's folder, run without files, without host objects, and with bounded fuel.
//!
//! Never tokenises.

use std::io::{self, Write};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Value;
use minijinja::{Environment, ErrorKind};

use super::TextError;

const NAME: &str = "chat_template";
const FUEL: u64 = 1_000_000;
const RECURSION: usize = 64;
const MAX_OUTPUT: usize = 16 * 1024 * 1024;

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatMessage {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// What was said.
    pub content: String,
}

#[derive(Debug)]
pub(super) struct ChatTemplate {
    source: String,
    bos_token: String,
    eos_token: String,
}

impl ChatTemplate {
    /// Checks that `source` is a template.
    pub(super) fn new(source: String, bos_token: String, eos_token: String) -> Result<Self, TextError> {
        environment(&source).map_err(|error| TextError::Template(reason(&error)))?;
        Ok(Self { source, bos_token, eos_token })
    }

    /// The text of a conversation, up to where the assistant speaks.
    pub(super) fn render(&self, messages: &[ChatMessage]) -> Result<String, TextError> {
        let refused = |error: minijinja::Error| TextError::Template(reason(&error));
        let environment = environment(&self.source).map_err(refused)?;
        let template = environment.get_template(NAME).map_err(refused)?;
        let context = minijinja::context! {
            messages => messages.iter().map(turn).collect::<Value>(),
            add_generation_prompt => true,
            bos_token => self.bos_token.as_str(),
            eos_token => self.eos_token.as_str(),
        };
        let mut output = Bounded(Vec::new());
        template.render_captured_to(context, &mut output).map_err(refused)?;
        String::from_utf8(output.0).map_err(|_| TextError::Template("it writes no UTF-8".into()))
    }
}

/// As transformers builds it: blocks trimmed, Python's methods on strings and maps, `raise_exception`.
fn environment(source: &str) -> Result<Environment<'_>, minijinja::Error> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_fuel(Some(FUEL));
    environment.set_recursion_limit(RECURSION);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_function("raise_exception", |message: String| -> Result<Value, minijinja::Error> {
        Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
    });
    environment.add_template(NAME, source)?;
    Ok(environment)
}

/// A message as templates read it: a map with `role` and `content`.
fn turn(message: &ChatMessage) -> Value {
    Value::from_pairs([("role", message.role.as_str()), ("content", message.content.as_str())])
}

/// The kind and the line, and the template's own words only if it raised them: never what the messages say.
fn reason(error: &minijinja::Error) -> String {
    let line = error.line().map_or_else(String::new, |line| format!(" in line {line}"));
    match (error.kind(), error.detail()) {
        (ErrorKind::InvalidOperation | ErrorKind::SyntaxError, Some(detail)) => format!("{detail}{line}"),
        (kind, _) => format!("{kind}{line}"),
    }
}

/// Collects at most [`MAX_OUTPUT`] bytes.
struct Bounded(Vec<u8>);

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_OUTPUT {
            return Err(io::Error::other("the conversation is too long"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;

    use super::*;

    fn render(source: &str, said: &[(&str, &str)]) -> Result<String, String> {
        let template = ChatTemplate::new(source.into(), "<bos>".into(), "<eos>".into()).map_err(|e| e.to_string())?;
        let message = |&(role, content): &(&str, &str)| ChatMessage { role: role.into(), content: content.into() };
        template.render(&said.iter().map(message).collect::<Vec<_>>()).map_err(|e| e.to_string())
    }

    #[test]
    fn a_template_in_the_manner_of_deepseek_renders_as_transformers_does() {
        let source = "{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}\
            {% set ns = namespace(system='') %}{%- for m in messages %}{%- if m['role'] == 'system' %}\
            {% set ns.system = m['content'] %}{%- endif %}{%- endfor %}{{bos_token}}{{ns.system}}\n\
            {%- for m in messages %}\n\
            {%- if m.role == 'user' %}<User>{{ m.content.strip() }}{% endif %}\n\
            {%- if m.role == 'assistant' and '</think>' in m.content %}<Bot>{{ m.content.split('</think>')[-1] }}\
            {{ eos_token }}{% endif %}\n\
            {%- endfor %}\n\
            {%- if add_generation_prompt %}<Bot>{% endif %}";
        let said = [("system", "Add."), ("user", " 1+1 "), ("assistant", "<think>x</think>2"), ("user", "2+2")];
        assert_eq!(render(source, &said).unwrap(), "<bos>Add.<User>1+1<Bot>2<eos><User>2+2<Bot>");
    }

    #[test]
    fn a_template_that_will_not_end_runs_out_of_fuel() {
        let error = render("{% for i in range(9999) %}{% for j in range(9999) %}{% endfor %}{% endfor %}", &[]);
        assert_eq!(error.unwrap_err(), "the chat template refuses the messages: engine ran out of fuel in line 1");
    }

    #[test]
    fn a_template_can_refuse_and_cannot_reach_a_file() {
        let error = render("{{ raise_exception('roles must alternate') }}", &[]).unwrap_err();
        assert_eq!(error, "the chat template refuses the messages: roles must alternate in line 1");
        for source in
            ["{% include '/etc/passwd' %}", "{% import 'x' as y %}", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"]
        {
            assert!(render(source, &[]).is_err(), "{source}");
        }
    }

    #[test]
    fn what_the_messages_say_is_no_template_and_not_repeated_in_errors() {
        assert_eq!(render("{{ messages[0].content }}", &[("user", "{{ 7*7 }}")]).unwrap(), "{{ 7*7 }}");
        let error = render("{{ messages[0].content|int }}", &[("user", "canary")]).unwrap_err();
        assert!(!error.contains("canary"), "{error}");
    }
}
