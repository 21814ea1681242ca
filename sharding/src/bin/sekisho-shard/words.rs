//! What the program says, in English and Japanese. Nothing here depends on the situation but the
//! named values in braces; a test holds the two languages to the same ones.

use clap::ValueEnum;

/// A language of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Lang {
    /// English.
    En,
    /// Japanese.
    Ja,
}

impl Lang {
    /// Chooses by SEKISHO_LANG, LC_ALL, LC_MESSAGES, LANG, in this order: the first that is set and
    /// not empty decides. Anything but Japanese is English.
    pub fn from_env(var: impl Fn(&str) -> Option<String>) -> Lang {
        let set = ["SEKISHO_LANG", "LC_ALL", "LC_MESSAGES", "LANG"]
            .iter()
            .find_map(|name| var(name).filter(|v| !v.is_empty()));
        match set {
            Some(value) if value == "ja" || value.starts_with("ja_") || value.starts_with("ja.") => Lang::Ja,
            _ => Lang::En,
        }
    }
}

/// A sentence of the word table with its values.
#[derive(Debug, Clone)]
pub struct Message {
    text: Text,
    values: Vec<(&'static str, String)>,
}

#[derive(Debug, Clone)]
enum Text {
    Words(Key),
    Verbatim(String),
}

impl Message {
    /// A sentence from its key and the values of its placeholders; see [`say!`].
    pub fn new(key: Key, values: Vec<(&'static str, String)>) -> Message {
        Message { text: Text::Words(key), values }
    }

    /// A line of a table, which is the same in every language.
    pub fn verbatim(text: String) -> Message {
        Message { text: Text::Verbatim(text), values: Vec::new() }
    }

    /// The sentence in a language.
    pub fn text(&self, lang: Lang) -> String {
        match &self.text {
            Text::Words(key) => fill(key.text(lang), &self.values),
            Text::Verbatim(text) => text.clone(),
        }
    }
}

/// A sentence with `name = value` pairs for its placeholders.
#[macro_export]
macro_rules! say {
    ($key:ident $(, $name:ident = $value:expr)* $(,)?) => {
        $crate::words::Message::new($crate::words::Key::$key, vec![$((stringify!($name), ($value).to_string())),*])
    };
}

/// Puts values in the place of their `{name}`; other text is left alone.
fn fill(text: &str, values: &[(&'static str, String)]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(open) = rest.find('{') {
        out.push_str(&rest[..open]);
        rest = &rest[open..];
        let known = rest.find('}').and_then(|close| {
            let value = values.iter().find(|(name, _)| *name == &rest[1..close])?;
            Some((close, &value.1))
        });
        if let Some((close, value)) = known {
            out.push_str(value);
            rest = &rest[close + 1..];
        } else {
            out.push('{');
            rest = &rest[1..];
        }
    }
    out + rest
}

macro_rules! words {
    ($($key:ident: $en:literal | $ja:literal;)*) => {
        /// A sentence of the program.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Key { $($key),* }

        impl Key {
            /// Every sentence.
            #[cfg(test)]
            const ALL: &'static [Key] = &[$(Key::$key),*];

            /// The sentence, with its placeholders.
            pub fn text(self, lang: Lang) -> &'static str {
                match (self, lang) {
                    $((Key::$key, Lang::En) => $en, (Key::$key, Lang::Ja) => $ja,)*
                }
            }
        }
    };
}

words! {
    WhyLabel: "why" | "理由";
    TodoLabel: "do" | "対処";
    Bytes: "{bytes} bytes" | "{bytes} バイト";
    Size: "{size} ({bytes} bytes)" | "{size}（{bytes} バイト）";

    // progress
    Splitting: "splitting" | "分散中";
    Combining: "combining" | "復元中";
    Verifying: "verifying" | "検査中";
    Repairing: "repairing" | "修復中";
    Refreshing: "sharing anew" | "再分散中";
    Measuring: "measuring" | "計測中";

    // places
    BadPlace: "{place} is not a place for shares" | "{place} は分散片の保管先として使えません";
    BadPlaceTodo: "give a folder, or a URL such as s3://bucket/folder" | "フォルダー、または s3://bucket/folder の形の URL を指定してください";
    NamedTwice: "{place} is named twice" | "{place} が二度指定されています";
    NamedTwiceTodo: "name every folder once" | "各フォルダーは一度だけ指定してください";
    NoFolder: "the folder {place} is not there" | "フォルダー {place} がありません";
    NoFolderTodo: "is its disk mounted? If it is the replacement of a lost one: mkdir {place}"
        | "ディスクがマウントされているか確認してください。失われたフォルダーの代わりなら mkdir {place} を実行してください";
    NoFolderNote: "the folder {place} is not there; going on without it" | "フォルダー {place} がありません。これを除いて続行します";
    CannotMakeFolder: "cannot make the folder {place}" | "フォルダー {place} を作成できません";
    AccessBad: "{path} is no file of backends' access" | "{path} は保管先のアクセス設定ではありません";
    AccessTodo: "see sekisho-shard(1), --access: a JSON object with an entry for each URL"
        | "sekisho-shard(1) の --access を参照してください。URL ごとの項目を持つ JSON です";

    // which object
    NoSuchObject: "these folders hold no such object" | "これらのフォルダーにその対象はありません";
    NoSuchObjectTodo: "look at what they hold: sekisho-shard inspect FOLDER…; check --object and --root, and that the disks are mounted"
        | "sekisho-shard inspect フォルダー… で内容を確認し、--object と --root、ディスクのマウントを確かめてください";
    SeveralObjects: "these folders hold several objects or epochs of one" | "これらのフォルダーには複数の対象（または世代）があります";
    SeveralTodo: "say which:{list}" | "どれかを指定してください:{list}";
    Believed: "no --root was given: believing the root that {held} of {of} folders hold, {root}"
        | "--root の指定がないため、{of} 個中 {held} 個のフォルダーが持つルート {root} を信用します";
    WrongSigner: "{object} was not signed by that key" | "{object} はその鍵で署名されていません";
    WrongSignerWhy: "it was signed by {key}" | "署名した鍵は {key} です";
    NotSigned: "it is not signed" | "署名がありません";
    WrongSignerTodo: "do not trust it; ask who deposited it" | "信用せず、預け入れた人に確認してください";

    // reading
    NoManifest: "no folder holds {object} with that root" | "そのルートの {object} を持つフォルダーがありません";
    NoManifestTodo: "check the root that you noted, and name more folders" | "控えたルートを確認し、他のフォルダーも指定してください";
    TooFew: "{needed} backends must give their shares of {object}, and {good} did"
        | "{object} の分散片は {needed} 個必要ですが、得られたのは {good} 個です";
    TooFewTodo: "name more folders, or bring back the disks that are missing; what is there is left as it is"
        | "フォルダーを追加するか、欠けているディスクを戻してください。現在あるものは変更していません";
    Forged: "block {block} of {object} is not what was deposited, though its shares agree"
        | "{object} のブロック {block} は、分散片どうしは一致しますが預け入れ時の内容と異なります";
    ForgedTodo: "those who hold the keys changed it, or it was deposited wrongly: keep everything untouched and tell the security staff"
        | "鍵の保有者による改変か、誤った預け入れです。すべて変更せずに保存し、セキュリティ担当に連絡してください";
    Defect: "this program made a mistake" | "プログラムの内部エラーです";
    DefectTodo: "try again; if it happens again, report it with this text" | "再実行し、再発する場合はこの表示とともに報告してください";
    FaultSeen: "{folder}: {kind}{place}{detail}" | "{folder}: {kind}{place}{detail}";
    FaultsMore: "{folder}: {kind}: {count} times in all" | "{folder}: {kind}: 合計 {count} 回";
    InBlock: ", block {block}" | "（ブロック {block}）";
    KindMissing: "does not have it" | "保持していません";
    KindCorrupt: "holds other bytes than it was given" | "預けた内容と異なります";
    KindShort: "holds fewer bytes than it was given" | "預けた内容より短くなっています";
    KindUnreachable: "cannot be reached" | "到達できません";
    KindTimeout: "did not answer in time" | "時間内に応答しません";

    // local files
    CannotRead: "cannot read {path}" | "{path} を読み込めません";
    CannotWrite: "{path} was not made" | "{path} を作成できませんでした";
    CannotWriteTodo: "nothing of it was left; check the disk's space and rights, and run it again"
        | "途中のデータは残していません。ディスクの空きと権限を確認して再実行してください";
    Exists: "{path} is there already" | "{path} は既にあります";
    ExistsTodo: "choose another name, or replace it with --force" | "別の名前を指定するか、--force で置き換えてください";
    ToTerminal: "plaintext does not belong on a terminal" | "平文を端末に表示することはできません";
    ToTerminalTodo: "write it to a file (-o FILE) or pipe it on" | "ファイル（-o ファイル）かパイプに出力してください";
    BeyondEnd: "the object has {size} bytes: there is nothing at {offset}" | "対象は {size} バイトで、位置 {offset} には何もありません";
    NoSigning: "{path} holds no Ed25519 key for signing" | "{path} に Ed25519 の署名鍵がありません";
    NoSigningTodo: "make one: openssl genpkey -algorithm ed25519 -out {path} && chmod 600 {path}"
        | "作成方法: openssl genpkey -algorithm ed25519 -out {path} && chmod 600 {path}";
    Exposed: "{path} can be read by others" | "{path} が他のユーザーから読めます";
    ExposedTodo: "chmod 600 {path}, and consider the key known" | "chmod 600 {path} を実行し、鍵が漏れた可能性を考慮してください";

    // split
    BadThreshold: "{k} of {n} cannot be shared out" | "{n} 個中 {k} 個での分散はできません";
    BadThresholdTodo: "k is at least 2 and at most n; n is the number of folders, at most 32" | "k は 2 以上 n 以下、n はフォルダー数（32 以下）です";
    FolderCount: "{n} shares need {n} folders, and {given} are named" | "{n} 個の分散片には {n} 個のフォルダーが必要ですが、指定は {given} 個です";
    ThereAlready: "these folders hold {object} already" | "これらのフォルダーには既に {object} があります";
    ThereAlreadyTodo: "choose another --object, or deposit it a second time with --beside" | "別の --object を指定するか、--beside で重ねて預け入れてください";
    Interrupted: "if this is interrupted: run it again with --object {object} --resume {set}"
        | "中断した場合は --object {object} --resume {set} を付けて再実行してください";
    SplitDone: "object {object}\nroot   {root}\n{size}, {k} of {n} folders rebuild it ({mode})"
        | "対象   {object}\nルート {root}\n{size}、{n} 個中 {k} 個のフォルダーで復元できます（{mode}）";
    SplitKeep: "keep the root: it recognises the object among all others" | "ルートを控えてください。対象を確実に識別するために必要です";
    Resumed: "{size} of it were there already" | "うち {size} は既に保管済みでした";
    SignedBy: "signed by {key}" | "署名した鍵: {key}";
    BackendRefused: "{folder} did not take its share" | "{folder} に分散片を書き込めませんでした";
    BackendSilent: "{folder} did not answer in time" | "{folder} が時間内に応答しませんでした";
    SplitTodo: "no root was given out. Mend it, then go on: --object {object} --resume {set}; or remove what is there: sekisho-shard collect --object {object}"
        | "ルートは発行していません。原因を解消し、--object {object} --resume {set} で再開するか、sekisho-shard collect --object {object} で削除してください";
    SourceBroke: "what was to be split could not be read to its end" | "分散する入力を最後まで読み込めませんでした";
    TooLarge: "an object has at most 8 TiB" | "一つの対象は 8 TiB までです";
    TooLargeTodo: "cut it into several" | "複数に分けてください";
    NoEntropy: "the operating system gave no randomness" | "OS から乱数を取得できません";
    NothingToResume: "no unfinished split {set} can be taken up here" | "再開できる分散 {set} がありません";
    NothingToResumeWhy: "{needed} folders must have its keys, and {good} have" | "鍵を持つフォルダーが {needed} 個必要ですが、{good} 個です";
    NothingToResumeTodo: "name all folders of it (sekisho-shard unfinished FOLDER… lists what there is), or split anew"
        | "すべてのフォルダーを指定するか（sekisho-shard unfinished フォルダー… で一覧）、最初からやり直してください";
    ResumeDiffers: "{set} was begun differently: {scheme}" | "{set} は異なる設定で開始されています: {scheme}";
    ResumeDiffersTodo: "leave out --k, --n and --mode: they are taken from what is there" | "--k、--n、--mode は不要です。既存の設定を使います";
    ResumeRefresh: "{set} belongs to a refresh that did not end" | "{set} は完了しなかった再分散のものです";
    ResumeRefreshTodo: "the object is as it was: refresh it again, then collect" | "対象は元のままです。再度 refresh を実行し、その後 collect してください";

    // combine
    CombineDone: "{path}: {size} of {object}" | "{path}: {object} の {size}";

    // verify, repair
    VerifyHead: "{object}: {size}, {scheme}" | "{object}: {size}、{scheme}";
    VerifyFolder: "  {folder}: {share}, {good} of {extents} extents good, {faults} faults"
        | "  {folder}: {share}、{extents} 区画中 {good} 区画が正常、異常 {faults} 件";
    Share: "share {x}" | "分散片 {x}";
    NoShare: "no share" | "分散片なし";
    VerifyWeakest: "  at least {weakest} shares of everything are good; {k} are needed, {n} were made"
        | "  どの部分も {weakest} 個以上の分散片が正常です（必要 {k} 個、作成 {n} 個）";
    VerifyWhole: "  all is well" | "  すべて正常です";
    VerifyPart: "  the folders named are well; {n} were made" | "  指定のフォルダーは正常です（作成 {n} 個）";
    VerifyDamaged: "  readable, but not all is well: sekisho-shard repair with all folders, soon"
        | "  読み出せますが異常があります。早めに全フォルダーを指定して sekisho-shard repair を実行してください";
    VerifyLost: "  some of it cannot be read from these folders: bring back more of them, and change nothing"
        | "  これらのフォルダーからは読み出せない部分があります。何も変更せず、他のフォルダーを戻してください";
    RepairHead: "{object}: {size}, {scheme}; before, at least {weakest} shares of everything were good"
        | "{object}: {size}、{scheme}。修復前は、どの部分も {weakest} 個以上の分散片が正常でした";
    RepairFolder: "  {folder}: {share}, {files} files written ({size})" | "  {folder}: {share}、{files} ファイルを書き込み（{size}）";
    RepairWhole: "  all {n} shares are whole now" | "  {n} 個すべての分散片が正常になりました";
    RepairLeft: "  not everything could be mended: see above, and run it again with all {n} folders"
        | "  修復できないものが残っています。上の表示を確認し、{n} 個すべてのフォルダーを指定して再実行してください";
    RepairLost: "  {count} extents cannot be rebuilt from these folders" | "  {count} 区画はこれらのフォルダーから復元できません";

    // refresh
    OnlyKeys: "in mode shamir there is no refresh of the keys alone" | "shamir モードでは鍵だけの再分散はできません";
    OnlyKeysTodo: "sekisho-shard refresh --everything" | "sekisho-shard refresh --everything を実行してください";
    WasSigned: "{object} is signed by {key}; the new epoch would not be" | "{object} は {key} で署名されていますが、新しい世代は無署名になります";
    WasSignedTodo: "name the key with --sign-key, or say --unsigned" | "--sign-key で鍵を指定するか、--unsigned を付けてください";
    Unsound: "the new shares do not read back as they were written" | "新しい分散片が書き込んだ内容と一致しません";
    UnsoundTodo: "keep to the old root; look at the disks (sekisho-shard verify), then refresh again"
        | "元のルートを使い続け、ディスクを確認（sekisho-shard verify）してから再実行してください";
    RefreshDone: "object {object}\nold    {old}\nroot   {root}\n{size}, epoch {epoch}, read back whole"
        | "対象   {object}\n旧     {old}\nルート {root}\n{size}、世代 {epoch}、読み戻して確認済み";
    RefreshKept: "the old epoch is still there: note the new root, then remove the old one with\n  sekisho-shard collect --object {object} --root {root} --yes FOLDER…"
        | "旧世代は残っています。新しいルートを控えてから、次のコマンドで旧世代を削除してください\n  sekisho-shard collect --object {object} --root {root} --yes フォルダー…";
    Retired: "the old epoch was removed: {files} files" | "旧世代を削除しました: {files} ファイル";
    RetireWhere: "the new root could not be written to {path}, so the old epoch was kept" | "新しいルートを {path} に書き込めないため、旧世代を残しました";

    // collect, unfinished
    NotKept: "{object} with root {root} cannot be read from these folders; nothing was removed"
        | "ルート {root} の {object} はこれらのフォルダーから読み出せません。何も削除していません";
    KeptDamaged: "{object} with root {root} is not whole; nothing was removed" | "ルート {root} の {object} は完全ではありません。何も削除していません";
    KeptDamagedTodo: "repair it first: sekisho-shard repair --root {root} FOLDER…; or go on with --accept-damage"
        | "先に sekisho-shard repair --root {root} フォルダー… で修復するか、--accept-damage で続行してください";
    WouldRemove: "would remove {files} files, {size}, and keep {kept}" | "{files} ファイル（{size}）を削除し、{kept} ファイルを残します";
    DryRun: "nothing was removed; do it with --yes" | "まだ何も削除していません。実行するには --yes を付けてください";
    RemovedDone: "removed {files} files, {size}; kept {kept}" | "{files} ファイル（{size}）を削除し、{kept} ファイルを残しました";
    Foreign: "{count} files are not Sekisho's and were left alone" | "Sekisho のものでない {count} ファイルには触れていません";
    OtherRoot: "  goes: epoch {epoch}, root {root}, held by {held} of {of}" | "  削除: 世代 {epoch}、ルート {root}（{of} 個中 {held} 個が保持）";
    SetGoes: "  goes: unfinished share set {set}" | "  削除: 未完了の分散片集合 {set}";
    SetStays: "  stays: unfinished share set {set}, written to less than {age} ago (--older-than)"
        | "  維持: 未完了の分散片集合 {set}（書き込みから {age} 未満、--older-than）";
    RootStays: "  stays: epoch {epoch}, root {root}" | "  維持: 世代 {epoch}、ルート {root}";
    NoRootNoted: "no --root: only unfinished share sets go, and no manifest" | "--root の指定がないため、未完了の分散片集合だけを対象とし、マニフェストは削除しません";
    NoneUnfinished: "nothing unfinished" | "未完了のものはありません";
    UnfinishedSet: "{object} set {set}: {scheme}, {extents} extents, in {held} of {of} folders"
        | "{object} 集合 {set}: {scheme}、{extents} 区画、{of} 個中 {held} 個のフォルダー";
    UnfinishedResume: "  go on: sekisho-shard split FILE --object {object} --resume {set} --out FOLDER…"
        | "  再開: sekisho-shard split ファイル --object {object} --resume {set} --out フォルダー…";
    UnfinishedGone: "  cannot be taken up; remove it: sekisho-shard collect --object {object} --yes FOLDER…"
        | "  再開できません。削除: sekisho-shard collect --object {object} --yes フォルダー…";
    UnfinishedManifest: "{object} root {root}: written whole, but only {held} of {of} folders have the manifest\n  finish it: sekisho-shard repair --object {object} --root {root} FOLDER…"
        | "{object} ルート {root}: 書き込みは完了していますが、マニフェストは {of} 個中 {held} 個のフォルダーにしかありません\n  完了: sekisho-shard repair --object {object} --root {root} フォルダー…";
    LeftUndone: "{count} folders did not do as they were asked; run it again when they answer" | "{count} 個のフォルダーで処理できませんでした。復旧後に再実行してください";

    // destroy
    DestroyAsk: "This removes {object} for good: {size}, {n} folders named. Type its name to go on:"
        | "{object} を完全に消去します（{size}、フォルダー {n} 個）。続けるには対象の名前を入力してください:";
    NotConfirmed: "{object} was not destroyed" | "{object} は消去していません";
    NotConfirmedWhy: "its name was not given" | "対象の名前が入力されませんでした";
    NotConfirmedTodo: "type {object} when asked, or give --yes-destroy {object}" | "確認時に {object} と入力するか、--yes-destroy {object} を付けてください";
    DestroySome: "{object} has {n} shares, and {given} folders are named" | "{object} の分散片は {n} 個ですが、指定されたフォルダーは {given} 個です";
    DestroySomeTodo: "name all {n}, or say --only-these: the others then count as still holding theirs"
        | "{n} 個すべてを指定するか、--only-these を付けてください（他のフォルダーは保持中とみなします）";
    HeldNothing: "{folder} held nothing of it: was the right disk mounted?" | "{folder} には何もありませんでした。正しいディスクか確認してください";
    NotGone: "the folders that are not confirmed: run it again when they answer" | "確認できないフォルダーは、復旧後に再実行してください";

    // inspect
    InspectExtent: "{file}: extent {extent} of {object}, {size} of plaintext, share {x} ({scheme}), set {set}, epoch {epoch}"
        | "{file}: {object} の区画 {extent}、平文 {size}、分散片 {x}（{scheme}）、集合 {set}、世代 {epoch}";
    InspectManifest: "{file}: manifest of {object}, {size} in {extents} extents, share {x} ({scheme}), set {set}, epoch {epoch}, {signer}"
        | "{file}: {object} のマニフェスト、{size}、{extents} 区画、分散片 {x}（{scheme}）、集合 {set}、世代 {epoch}、{signer}";
    InspectKeys: "{file}: key share of {object}, share {x} ({scheme}), set {set}, epoch {epoch}"
        | "{file}: {object} の鍵の分散片 {x}（{scheme}）、集合 {set}、世代 {epoch}";
    NotAShare: "{path} is nothing of Sekisho's" | "{path} は Sekisho のファイルではありません";
    NotAShareTodo: "is it whole? A share begins with the letters SEKISHRD" | "ファイルが壊れていないか確認してください。分散片は SEKISHRD で始まります";
    BadManifest: "the manifest behind its header is damaged" | "ヘッダーに続くマニフェストが壊れています";
    FolderEmpty: "{place}: nothing of Sekisho's" | "{place}: Sekisho のものはありません";

    // bench
    BenchHead: "{k} of {n}, blocks of 64 KiB in cache, one core; MB (10⁶ bytes) of plaintext per second"
        | "{n} 個中 {k} 個、64 KiB ブロック（キャッシュ内）、1 コア、平文の毎秒 MB（10⁶ バイト）";
    BadMan: "there is no such verb: {verb}" | "そのような動作はありません: {verb}";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn placeholders(text: &str) -> BTreeSet<&str> {
        text.split('{').skip(1).filter_map(|part| part.split_once('}')).map(|(name, _)| name).collect()
    }

    #[test]
    fn both_languages_say_everything_with_the_same_values() {
        for key in Key::ALL {
            let (en, ja) = (key.text(Lang::En), key.text(Lang::Ja));
            assert!(!en.trim().is_empty() && !ja.trim().is_empty(), "{key:?}");
            assert_eq!(placeholders(en), placeholders(ja), "{key:?}");
        }
    }

    #[test]
    fn japanese_is_japanese() {
        let same: Vec<_> = Key::ALL.iter().filter(|key| key.text(Lang::Ja).is_ascii()).collect();
        assert!(same.iter().all(|key| **key == Key::FaultSeen), "{same:?}");
    }

    #[test]
    fn the_first_variable_that_is_set_decides() {
        let env = |pairs: &'static [(&'static str, &'static str)]| {
            Lang::from_env(move |name| pairs.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned()))
        };
        assert_eq!(env(&[("LANG", "ja_JP.UTF-8")]), Lang::Ja);
        assert_eq!(env(&[("LANG", "ja_JP.UTF-8"), ("LC_ALL", "C")]), Lang::En);
        assert_eq!(env(&[("LANG", "C"), ("LC_ALL", ""), ("SEKISHO_LANG", "ja")]), Lang::Ja);
        assert_eq!(env(&[]), Lang::En);
    }
}
