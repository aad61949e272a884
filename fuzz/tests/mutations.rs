//! Mutation tests: valid rows of every type, of which bytes are changed, lost, doubled or cut off. The seed is fixed,
//! so that a failure can be repeated.

#[path = "../../bench/src/by_library.rs"]
mod by_library;

use polyglot_core::column::WireType;
use polyglot_core::format_options::FormatOptions;
use polyglot_formats::Format;
use polyglot_formats::copy::{HEADER, TRAILER};
use polyglot_formats::standalone::encode;
use polyglot_fuzz::mutate::mutate;
use polyglot_fuzz::{Case, decode};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const ROUNDS: usize = 300_000;

/// Returns a valid value of the type at `wire` in [`WireType::SAMPLES`].
fn value(wire: usize, rng: &mut StdRng) -> Vec<u8> {
    let texts: [&[u8]; 5] = [b"", b"plain", "é😀\n\"".as_bytes(), b"a,b\\", b"=1\x01"];
    let numerics: [&[u8]; 4] = [
        &[0, 0, 0, 0, 0xC0, 0, 0, 0],
        &[0, 2, 0, 0, 0x40, 0, 0, 4, 0, 12, 13, 72],
        &[0, 0, 0, 0, 0, 0, 0, 0],
        &[0, 1, 0, 250, 0, 0, 0, 0, 0, 1],
    ];
    let json: [&[u8]; 4] = [b"{\"a\": [1, null, \"\\ud83d\\ude00\"]}", b"[]", b"\"\\ud800\"", b"1.50"];
    match wire {
        0 => vec![u8::from(rng.random::<bool>())],
        1 => rng.random::<i16>().to_be_bytes().to_vec(),
        2 => rng.random::<i32>().to_be_bytes().to_vec(),
        3 => rng.random::<i64>().to_be_bytes().to_vec(),
        4 => f32::from_bits(rng.random()).to_be_bytes().to_vec(),
        5 => f64::from_bits(rng.random()).to_be_bytes().to_vec(),
        6 | 7 => numerics[rng.random_range(0..4)].to_vec(),
        8 | 9 if rng.random_ratio(1, 2000) => "long, \"é\"\r\n<&>😀 ".repeat(9000).into_bytes(),
        8 | 9 | 17 => texts[rng.random_range(0..5)].to_vec(),
        10 => [i32::MIN, i32::MAX, 0, -2_451_545, 2_145_031_948][rng.random_range(0..5)].to_be_bytes().to_vec(),
        11 => [0, 86_400_000_000_i64, 1, 3_723_000_400][rng.random_range(0..4)].to_be_bytes().to_vec(),
        12 | 13 => [i64::MIN, i64::MAX, 0, -211_813_488_000_000_000][rng.random_range(0..4)].to_be_bytes().to_vec(),
        14 => rng.random::<[u8; 16]>().to_vec(),
        15 => json[rng.random_range(0..4)].to_vec(),
        _ => [&[1], json[rng.random_range(0..4)]].concat(),
    }
}

fn field(bytes: Option<Vec<u8>>) -> Vec<u8> {
    match bytes {
        Some(bytes) => [&i32::try_from(bytes.len()).unwrap().to_be_bytes()[..], &bytes].concat(),
        None => (-1_i32).to_be_bytes().to_vec(),
    }
}

fn array(wire: usize, dimensions: usize, rng: &mut StdRng) -> Vec<u8> {
    if wire == 17 {
        let texts = ["{}", "{a,NULL,\"b \\\"c\"}", "{{a,b},{c,d}}", "[0:1]={x,y}"];
        return texts[rng.random_range(0..4)].as_bytes().to_vec();
    }
    let mut bytes: Vec<u8> =
        [i32::try_from(dimensions).unwrap(), 1, 25].iter().flat_map(|it| it.to_be_bytes()).collect();
    for _ in 0..dimensions {
        bytes.extend([2_i32.to_be_bytes(), 1_i32.to_be_bytes()].concat());
    }
    for _ in 0..2_usize.pow(u32::try_from(dimensions).unwrap()) {
        let item = (rng.random_range(0..4) > 0).then(|| value(wire, rng));
        bytes.extend(field(item));
    }
    bytes
}

/// Returns an input with valid rows, of columns whose kinds are below `kinds`.
fn valid(rng: &mut StdRng, kinds: u8) -> Vec<u8> {
    let kinds: Vec<u8> = (0..rng.random_range(1..8)).map(|_| rng.random_range(0..kinds)).collect();
    let mut data = vec![rng.random(), rng.random(), u8::try_from(kinds.len()).unwrap()];
    data.extend(&kinds);
    for _ in 0..rng.random_range(0..4) {
        data.extend(i16::try_from(kinds.len()).unwrap().to_be_bytes());
        for kind in &kinds {
            let (wire, dimensions) =
                (usize::from(*kind) % WireType::SAMPLES.len(), usize::from(*kind) / WireType::SAMPLES.len() % 7);
            let bytes = match (rng.random_range(0..6), dimensions) {
                (0, _) => None,
                (_, 0) => Some(value(wire, rng)),
                (_, dimensions) => Some(array(wire, dimensions, rng)),
            };
            data.extend(field(bytes));
        }
    }
    data
}

#[test]
fn no_bytes_make_the_decoder_panic_and_every_file_is_well_formed() {
    let mut rng = StdRng::seed_from_u64(20_260_122);
    let (mut files, mut files_of_mutants) = (0, 0);
    for _ in 0..ROUNDS {
        let mut data = valid(&mut rng, 126);
        files += usize::from(decode(&data));
        mutate(&mut data, &[0, 1, 0x7f, 0x80, 0xff], &mut rng);
        files_of_mutants += usize::from(decode(&data));
    }
    // Valid rows become a file unless the format cannot represent a value, and many changed bytes only change a value.
    assert!(files > ROUNDS / 3, "{files}");
    assert!(files_of_mutants > ROUNDS / 20 && files_of_mutants < files, "{files_of_mutants} of {files}");
}

fn csv_records(file: &[u8]) -> Vec<csv::ByteRecord> {
    let reader = csv::ReaderBuilder::new().has_headers(false).from_reader(file).into_byte_records();
    reader.map(Result::unwrap).collect()
}

/// Returns the names, texts and ends that a reader finds.
fn xml_events(file: &[u8]) -> Vec<String> {
    use quick_xml::events::Event;
    let mut reader = quick_xml::Reader::from_reader(file);
    let (mut seen, mut text) = (Vec::new(), String::new());
    loop {
        let event = reader.read_event().unwrap();
        match &event {
            Event::Text(it) => text.push_str(it),
            Event::GeneralRef(it) => {
                let name: &str = it;
                text.push_str(&quick_xml::escape::unescape(&format!("&{name};")).unwrap());
            }
            Event::Empty(_) | Event::Start(_) | Event::End(_) => {
                seen.push(std::mem::take(&mut text));
                seen.push(format!("{event:?}"));
            }
            Event::Eof => return seen,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn what_is_read_from_our_files_is_what_the_libraries_write() {
    let mut rng = StdRng::seed_from_u64(4711);
    let (scalars, options) = (u8::try_from(WireType::SAMPLES.len()).unwrap(), FormatOptions::default());
    let mut compared = 0;
    for _ in 0..20_000 {
        let data = valid(&mut rng, scalars);
        let mut case = Case::read(&data).unwrap();
        for (index, column) in case.columns.iter_mut().enumerate() {
            column.name = format!("c{index}");
            // JSON as text, because no library writes JSON itself as we do.
            if matches!(column.wire, WireType::Json | WireType::Jsonb) {
                column.wire = WireType::Bytea;
            }
        }
        let copy = [HEADER, case.rows, TRAILER].concat();
        for name in ["csv", "jsonl", "xml"] {
            let format = Format::by_name(name).unwrap();
            let Ok(ours) = encode(&copy, &case.columns, format, &options) else { continue };
            let theirs = by_library::encode(&copy, &case.columns, format).unwrap().unwrap();
            match name {
                "csv" => {
                    let header: csv::ByteRecord = case.columns.iter().map(|it| it.name.as_bytes()).collect();
                    let ours = csv_records(&ours);
                    assert_eq!(ours[0], header);
                    // Our file has an empty line for a row of one NULL, which the reader skips; the library's file has
                    // `""`.
                    if case.columns.len() > 1 {
                        assert_eq!(ours[1..], csv_records(&theirs));
                    }
                }
                "xml" if case.columns.iter().all(|it| it.wire != WireType::Bytea) => {
                    let text = std::str::from_utf8(&ours).unwrap();
                    let (_, rows) = text.split_once("instance\">\n").unwrap();
                    let rows = rows.strip_suffix("</records>\n").unwrap();
                    assert_eq!(xml_events(rows.as_bytes()), xml_events(&theirs));
                }
                "xml" => continue,
                _ => assert_eq!(String::from_utf8(ours).unwrap(), String::from_utf8(theirs).unwrap()),
            }
            compared += 1;
        }
    }
    assert!(compared > 20_000, "{compared}");
}
