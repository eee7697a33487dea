//! A byte-level tokenizer as DeepSeek's, small enough to write here, and the laws of text.

use super::fixture::write_tokenizer;
use super::*;
use pretty_assertions::assert_eq;
use proptest::prelude::*;
use rstest::rstest;

fn model() -> (tempfile::TempDir, ModelText) {
    let directory = tempfile::tempdir().unwrap();
    write_tokenizer(directory.path());
    let text = ModelText::load(directory.path()).unwrap();
    (directory, text)
}

#[test]
fn text_gets_the_bos_and_a_conversation_gets_what_its_template_writes() {
    let (_directory, model) = model();
    assert_eq!(model.encode_text("hi!").unwrap(), [257, 256, 33]);
    let said = [ChatMessage { role: "u".into(), content: "hi".into() }];
    assert_eq!(model.encode_chat(&said).unwrap(), [257, 91, 117, 93, 256, 259]);
    assert_eq!(model.eos(), [2, 3, 258]);
    assert!(model.has_chat_template());
}

#[test]
fn the_tiny_model_hears_a_sum_as_it_was_trained_to() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/tiny");
    let model = ModelText::load(folder.as_ref()).unwrap();
    let asked = [ChatMessage { role: "user".into(), content: "12+3".into() }];
    // <bos> <user> 1 2 + 3 <assistant>
    assert_eq!(model.encode_chat(&asked).unwrap(), [1, 4, 25, 26, 19, 27, 5]);
    assert_eq!(model.encode_text("12+3").unwrap(), [1, 25, 26, 19, 27]);
    assert_eq!(model.eos(), [2]);
    let mut decoder = model.detokenizer();
    let said: String = [6, 25, 7, 26, 2].into_iter().map(|id| decoder.push(id)).collect();
    assert_eq!(said, "<think>1</think>2");
}

#[test]
fn thinking_is_part_of_the_text_and_other_special_tokens_are_not() {
    let (_directory, model) = model();
    let mut decoder = model.detokenizer();
    let pieces: Vec<String> = [257, 259, 256, 260, 33, 258].into_iter().map(|id| decoder.push(id)).collect();
    assert_eq!(pieces, ["", "<think>", "hi", "</think>", "!", ""]);
    assert!(!decoder.is_holding());
}

#[test]
fn a_character_appears_with_its_last_byte_and_half_of_one_at_the_end() {
    let (_directory, model) = model();
    let mut decoder = model.detokenizer();
    let pieces: Vec<String> = "a€".bytes().chain([0xe2, 0x82]).map(|byte| decoder.push(byte.into())).collect();
    assert_eq!(pieces, ["a", "", "", "€", "", ""]);
    assert!(decoder.is_holding());
    assert_eq!(decoder.finish(), "\u{fffd}");
    assert_eq!(decoder.finish(), "");
}

#[test]
fn a_folder_without_a_tokenizer_answers_token_ids_only() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("config.json"), r#"{"eos_token_id": 1}"#).unwrap();
    let model = ModelText::load(directory.path()).unwrap();
    assert_eq!(model.eos(), [1]);
    assert!(matches!(model.encode_text("hi"), Err(TextError::NoTokenizer)));
    assert_eq!(model.detokenizer().push(5), "");
}

#[rstest]
#[case("tokenizer.json", b"{\"a\": \"\xff\"}", "not UTF-8 at byte 7")]
#[case("tokenizer.json", b"{", "EOF while parsing")]
#[case("tokenizer.json", b"{\"model\": 1}", "is not usable")]
#[case("tokenizer_config.json", b"[1", "EOF while parsing")]
#[case("chat_template.jinja", b"{% if %}", "the chat template refuses")]
#[case("chat_template.jinja", b"\xff", "not UTF-8 at byte 0")]
fn a_file_that_is_not_what_it_should_be_is_refused_by_its_name(
    #[case] file: &str,
    #[case] bytes: &[u8],
    #[case] expected: &str,
) {
    let directory = tempfile::tempdir().unwrap();
    write_tokenizer(directory.path());
    std::fs::write(directory.path().join(file), bytes).unwrap();
    let error = ModelText::load(directory.path()).unwrap_err().to_string();
    assert!(error.contains(expected), "{error}");
    assert!(error.contains(file) || expected.contains("template"), "{error}");
}

proptest! {
    #[test]
    fn the_pieces_join_to_the_whole_whatever_the_tokens(ids in prop::collection::vec(
        prop_oneof![0_u32..261, 120_u32..256, Just(0xe2), Just(0x82), Just(0xac), Just(0xf0)], 0..60,
    )) {
        let (_directory, model) = model();
        let mut decoder = model.detokenizer();
        let mut joined: String = ids.iter().map(|&id| decoder.push(id)).collect();
        joined.push_str(&decoder.finish());
        let spoken: Vec<u32> = ids.iter().copied().filter(|id| ![257, 258].contains(id)).collect();
        prop_assert_eq!(joined, model.tokenizer.as_ref().unwrap().decode(&spoken).unwrap());
    }
}
