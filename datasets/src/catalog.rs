//! The data files: where each is published, how large it is, its checksum, its license, whether it may be
//! fetched; and the data sets that come as whole folders, which are unpacked by hand.

/// A data file that some task needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataFile {
    /// Path inside the data folder.
    pub path: &'static str,
    /// Size in bytes.
    pub bytes: u64,
    /// SHA-256 of the file, in hexadecimal.
    pub sha256: &'static str,
    /// Where it comes from, in words.
    pub source: &'static str,
    /// Licence, as far as known.
    pub license: &'static str,
    /// How it can be had.
    pub access: Access,
}

/// How a data file can be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Published as it is at any of these addresses.
    Published(&'static [&'static str]),
    /// Published at this address as piano-rolls in another spelling (order of the splits, blanks), which is
    /// brought into the form of [`crate::readers::music::to_text`]; the checksum is that of the result.
    PianoRolls(&'static str),
    /// Not to be fetched by a program, for this reason. A user who has the right to it may name an address.
    Manual(&'static str),
}

impl DataFile {
    /// Whether it is fetched without the user naming an address.
    pub const fn is_free(&self) -> bool {
        !matches!(self.access, Access::Manual(_))
    }
}

/// A data set that is read as a folder in its original layout. It is had by hand: archives of many files, some of which
/// ask for a registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataFolder {
    /// Path inside the data folder, with `/` at the end.
    pub path: &'static str,
    /// What is expected in it.
    pub layout: &'static str,
    /// Where it comes from, in words.
    pub source: &'static str,
    /// Licence, as far as known.
    pub license: &'static str,
    /// Address of the archive, or of the page that leads to it.
    pub address: &'static str,
}

/// Every data set that is read as a folder.
pub const FOLDERS: &[DataFolder] = &[
    DataFolder {
        path: "cifar10/",
        layout: "data_batch_1.bin to data_batch_5.bin and test_batch.bin, each plain or gzip; for set=part \
            data_batch_1.bin, data_batch_5_last1000.bin, test_batch_first1000.bin",
        source: "CIFAR-10, binary version, A. Krizhevsky, V. Nair, G. Hinton",
        license: "none stated",
        address: "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    },
    DataFolder {
        path: "UCI HAR Dataset/",
        layout: "{train,test}/Inertial Signals/*.txt, y_*.txt, subject_*.txt, as unpacked",
        source: "Human Activity Recognition Using Smartphones, D. Anguita et al. 2013",
        license: "as is; any commercial use is prohibited",
        address: "https://archive.ics.uci.edu/dataset/240/human+activity+recognition+using+smartphones",
    },
    DataFolder {
        path: "dsa/",
        layout: "a01/p1/s01.txt to a19/p8/s60.txt (the folder `data` of the archive)",
        source: "Daily and Sports Activities, K. Altun, B. Barshan 2010",
        license: "CC BY 4.0",
        address: "https://archive.ics.uci.edu/dataset/256/daily+and+sports+activities",
    },
    DataFolder {
        path: "speech_commands/",
        layout: "a folder for each word, _background_noise_, validation_list.txt, testing_list.txt",
        source: "Speech Commands, version 0.01, P. Warden 2017",
        license: "CC BY 4.0",
        address: "https://storage.googleapis.com/download.tensorflow.org/data/speech_commands_v0.01.tar.gz",
    },
    DataFolder {
        path: "timit/",
        layout: "{TRAIN,TEST}/DR*/*/*.WAV and *.PHN, in capitals or not",
        source: "TIMIT Acoustic-Phonetic Continuous Speech Corpus (LDC93S1), J. Garofolo et al. 1993",
        license: "Linguistic Data Consortium; not a free license",
        address: "https://catalog.ldc.upenn.edu/LDC93S1",
    },
    DataFolder {
        path: "yelp/",
        layout: "yelp_academic_dataset_review.json, plain or gzip",
        source: "Yelp academic data set",
        license: "Yelp's terms of use, academic purposes",
        address: "https://www.yelp.com/dataset",
    },
];

/// The folder of a path.
pub fn folder(path: &str) -> Option<&'static DataFolder> {
    FOLDERS.iter().find(|f| f.path == path)
}

const MNIST: &str = "Y. LeCun, C. Cortes, C. Burges, from NIST data";
const MNIST_LICENSE: &str = "usually given as CC BY-SA 3.0";
const PTB: &str = "Penn Treebank (LDC99T42), Wall Street Journal part, in T. Mikolov's preprocessing \
    (simple-examples.tgz of rnnlm)";
const PTB_LICENSE: &str = "Linguistic Data Consortium; not a free license";
const PTB_MANUAL: &str = "the text is licensed by the Linguistic Data Consortium; \
    name an address you have the right to use";
const HAPT: &str = "Smartphone-Based Recognition of Human Activities and Postural Transitions 2.1, J. Reyes-Ortiz et al. \
    2015, cut into windows";
const HAPT_LICENSE: &str = "as is; any commercial use is prohibited";
const HAPT_MANUAL: &str = "cut from https://archive.ics.uci.edu/dataset/341: for each line of its labels.txt, windows of \
    128 samples begin every 64 as long as they end in it; .npy of f32 [windows, 128, 6] and u8 [windows]";
const JSB_ADDRESS: &str = "https://raw.githubusercontent.com/czhuang/JSB-Chorales-dataset/\
    9a7f733ddb4ed91f48da64ac7f0f621c34aadd4d/jsb-chorales-quarter.json";
const MUSIC_MANUAL: &str = "published as Python pickles at \
    http://www-etud.iro.umontreal.ca/~boulanni/icml2012, to be written as \
    {\"train\": [[[notes of a step], ...], ...], \"valid\": ..., \"test\": ...}";

macro_rules! mnist {
    ($name:literal, $bytes:literal, $sha256:literal) => {
        DataFile {
            path: concat!("mnist/", $name),
            bytes: $bytes,
            sha256: $sha256,
            source: MNIST,
            license: MNIST_LICENSE,
            access: Access::Published(&[
                concat!("https://ossci-datasets.s3.amazonaws.com/mnist/", $name),
                concat!("https://storage.googleapis.com/cvdf-datasets/mnist/", $name),
            ]),
        }
    };
}

macro_rules! ptb {
    ($name:literal, $bytes:literal, $sha256:literal) => {
        DataFile {
            path: concat!("ptb/", $name),
            bytes: $bytes,
            sha256: $sha256,
            source: PTB,
            license: PTB_LICENSE,
            access: Access::Manual(PTB_MANUAL),
        }
    };
}

macro_rules! hapt {
    ($name:literal, $bytes:literal, $sha256:literal) => {
        DataFile {
            path: concat!("har/", $name),
            bytes: $bytes,
            sha256: $sha256,
            source: HAPT,
            license: HAPT_LICENSE,
            access: Access::Manual(HAPT_MANUAL),
        }
    };
}

macro_rules! music {
    ($name:literal, $bytes:literal, $sha256:literal, $source:literal, $license:literal, $access:expr) => {
        DataFile {
            path: concat!("music/", $name),
            bytes: $bytes,
            sha256: $sha256,
            source: concat!(
                $source,
                "; piano-rolls and splits by N. Boulanger-Lewandowski et al., ICML 2012"
            ),
            license: $license,
            access: $access,
        }
    };
}

/// Every data file.
pub const FILES: &[DataFile] = &[
    mnist!(
        "train-images-idx3-ubyte.gz",
        9_912_422,
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"
    ),
    mnist!(
        "train-labels-idx1-ubyte.gz",
        28_881,
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"
    ),
    mnist!(
        "t10k-images-idx3-ubyte.gz",
        1_648_877,
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"
    ),
    mnist!(
        "t10k-labels-idx1-ubyte.gz",
        4_542,
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"
    ),
    ptb!("ptb.train.txt", 5_101_618, "fcea919f6cf83f35d4d00c6cbf08040d13d4155226340912e2fef9c9c4102cbf"),
    ptb!("ptb.valid.txt", 399_782, "c9fe6985fe0d4ccb578183407d7668fc6066c20700cb4cf87d8ff1cc34df1bf2"),
    ptb!("ptb.test.txt", 449_945, "dd65dff31e70846b2a6030a87482edcd5d199130cdcfa1f3dccbb033728deee0"),
    ptb!(
        "ptb.char.train.txt",
        10_034_964,
        "e313d91425e06c4f0a8fb6e881dcce0c291f2a0e9f4dda54833069b122f91da9"
    ),
    ptb!("ptb.char.valid.txt", 786_084, "21661f63ec355085879458b6524644d4add5573541b4be14fb52ab2e2e995eb8"),
    ptb!("ptb.char.test.txt", 884_846, "1ef5607ac3c463b16e38bfe7900dd3bfc91de5a96e0f21e7eab5188b465b8ebe"),
    hapt!("x_train.npy.gz", 7_440_828, "b05e28143011434a46e6ef8d1d1c70b96fffbce8887f862274ae4400e32fd15a"),
    hapt!("y_train.npy.gz", 746, "ae2dadcdb143114204e52424450839ad12f4b6fbfe566ede7fa33da82f23fe2c"),
    hapt!("subject_train.npy.gz", 178, "ca60134e1276f55f43f0ca0e9c7e2043a06565099c0af86641f8e35e5b72e6e5"),
    hapt!("x_test.npy.gz", 3_087_893, "88975552904dc7640d28c52a412ef5651e9c1ca2461d5918ede6c5b407871b57"),
    hapt!("y_test.npy.gz", 421, "e7ff317bf33236d8bf60e197d8d0c93dd8a8d623bd87a141df34f796f4db86cf"),
    music!(
        "jsb_chorales.json",
        317_132,
        "d40ed9b0a64a04c70e79d3695bd85823ac41c9ea6284a479d9aff849155ed73e",
        "J. S. Bach's chorales, after M. Allan and C. Williams 2005",
        "none stated for the piano-rolls",
        Access::PianoRolls(JSB_ADDRESS)
    ),
    music!(
        "piano_midi.json",
        1_157_887,
        "f7e098a63c97e7644dca7a6255dbd0fd48437c710d031b585b6d92f7c4e305f6",
        "classical piano MIDI files by B. Krueger",
        "MIDI files: CC BY-SA (Germany); none stated for the piano-rolls",
        Access::Manual(MUSIC_MANUAL)
    ),
    music!(
        "nottingham.json",
        3_706_783,
        "cf213f20d0ff9480d8c80f77730b5176647bd63f47cd2a0f46bb4c1b2ac26e4f",
        "folk tunes, E. Foxley",
        "none stated for the piano-rolls",
        Access::Manual(MUSIC_MANUAL)
    ),
    music!(
        "musedata.json",
        4_877_501,
        "fd0fbc6bef78df7a6197b01b403ec4a350832f0ee8b13dcb7b395eed4243ff93",
        "MuseData, CCARH",
        "own terms, non-commercial",
        Access::Manual(MUSIC_MANUAL)
    ),
];

/// The data file of a path.
pub fn file(path: &str) -> Option<&'static DataFile> {
    FILES.iter().find(|f| f.path == path)
}

/// What to do about a missing file.
pub(crate) fn advice(path: &str) -> String {
    if let Some(f) = FOLDERS.iter().find(|f| path.starts_with(f.path)) {
        let DataFolder { layout, address, .. } = f;
        return format!(
            "`retrograd data` lists what each task needs; unpack {address} there, expected: {layout}"
        );
    }
    match file(path).map(|f| f.access) {
        Some(Access::Published(_) | Access::PianoRolls(_)) => {
            "`retrograd data` lists what each task needs and fetches this file".into()
        }
        Some(Access::Manual(why)) => format!("`retrograd data` lists what each task needs; {why}"),
        None => "`retrograd data` lists what each task needs".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::TASKS;

    #[test]
    fn every_needed_file_is_here_and_needed() {
        for path in TASKS.iter().flat_map(|t| t.needs) {
            assert!(file(path).is_some() || folder(path).is_some(), "{path}");
        }
        for f in FOLDERS {
            assert!(TASKS.iter().any(|t| t.needs.contains(&f.path)) && f.path.ends_with('/'), "{}", f.path);
        }
        for f in FILES {
            assert!(TASKS.iter().any(|t| t.needs.contains(&f.path)), "{}", f.path);
            assert!(f.sha256.len() == 64 && f.sha256.bytes().all(|b| b.is_ascii_hexdigit()), "{}", f.path);
            assert!(f.bytes > 0);
        }
    }

    #[test]
    fn addresses_are_encrypted() {
        assert!(FOLDERS.iter().all(|f| f.address.starts_with("https://")));
        for f in FILES {
            let addresses: &[&str] = match &f.access {
                Access::Published(list) => list,
                Access::PianoRolls(one) => std::slice::from_ref(one),
                Access::Manual(_) => &[],
            };
            assert!(addresses.iter().all(|a| a.starts_with("https://")), "{}", f.path);
        }
    }
}
