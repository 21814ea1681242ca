//! What the program says, in English and Japanese. Nothing here depends on the situation but the
//! named values in braces; a test holds the two languages to the same ones.

/// A language of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

/// Puts values in the place of their `{name}`; other text is left alone.
pub fn fill(text: &str, values: &[(&'static str, String)]) -> String {
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
        #[allow(missing_docs, reason = "the sentence itself says it")]
        pub enum Key { $($key),* }

        impl Key {
            /// Every sentence.
            pub const ALL: &'static [Key] = &[$(Key::$key),*];

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

    // reaching the broker
    Unreachable: "the broker at {at} does not answer" | "ブローカー {at} が応答しません";
    UnreachableTodo: "check the address, and that the node runs (`sekisho up --dir …`)"
        | "アドレスと、ノードが起動しているか（`sekisho up --dir …`）を確認してください";
    Untrusted: "the broker at {at} is not the one you enrolled with" | "ブローカー {at} は登録時のものと異なります";
    UntrustedTodo: "do not send anything to it; ask the programme office whether its authority was replaced (then: new token, `sekisho login --token …`)"
        | "何も送信せず、認証局が交換されたか事務局に確認してください（交換された場合は新しいトークンで `sekisho login --token …`）";
    NotUnderstood: "the answer of {at} could not be understood" | "{at} の応答を解釈できません";
    NotUnderstoodTodo: "check that this is the API address, and that both sides run the same version"
        | "API のアドレスか、双方のバージョンが同じかを確認してください";
    RefusedByBroker: "refused: {message}" | "拒否されました: {message}";
    FailedAtBroker: "not done: {message}" | "実行されませんでした: {message}";
    BusyBroker: "not now: {message}" | "現在は実行できません: {message}";
    BadUrl: "{text} is not an address like https://gate.example.org:8443" | "{text} は https://gate.example.org:8443 の形のアドレスではありません";

    // local files
    CannotRead: "cannot read {path}" | "{path} を読み込めません";
    CannotWrite: "cannot write {path}" | "{path} に書き込めません";
    BadFile: "{path} is damaged" | "{path} が壊れています";
    BadFileTodo: "move it away and run `sekisho login` again (with a new token if the key is lost)"
        | "ファイルを退避して `sekisho login` をやり直してください（鍵を失った場合は新しいトークンが必要です）";
    NoHome: "there is no home directory" | "ホームディレクトリがありません";
    NoHomeTodo: "set SEKISHO_HOME to a folder of your own" | "SEKISHO_HOME に自分のフォルダーを指定してください";
    NoEntropy: "the operating system gave no randomness" | "OS から乱数を取得できません";
    TooOpen: "{path} can be read by others" | "{path} が他のユーザーから読めます";
    TooOpenTodo: "chmod 600 {path}, and consider the key known: ask for a new token" | "chmod 600 {path} を実行し、鍵が漏れた可能性があるため新しいトークンを申請してください";

    // login
    NotLoggedIn: "you are not logged in on this device" | "この端末ではまだログインしていません";
    NotLoggedInTodo: "sekisho login --api https://… --person NAME --token skt1…" | "sekisho login --api https://… --person 名前 --token skt1…";
    NeedToken: "the first login on a device needs a one-time token" | "この端末での最初のログインにはワンタイムトークンが必要です";
    NeedTokenTodo: "ask the programme office for one, then add --token skt1…" | "事務局に申請し、--token skt1… を付けてください";
    BadToken: "this is not a token for a person" | "個人用のトークンではありません";
    BadTokenTodo: "copy the whole text, from skt1 to its end" | "skt1 から末尾までをすべてコピーしてください";
    BadName: "{text} is not a name" | "{text} は名前として使えません";
    LoggedIn: "logged in as {person} until {expires}" | "{person} としてログインしました（{expires} まで）";
    Enrolled: "this device is now enrolled: its key is {path}" | "この端末を登録しました。鍵: {path}";
    TryShell: "a shell in a study:    sekisho ssh STUDY" | "研究のシェル:    sekisho ssh 研究名";
    TryStock: "or with plain OpenSSH: ssh -F {config} STUDY@{host}" | "OpenSSH でも:    ssh -F {config} 研究名@{host}";
    BadAnswer: "the broker's certificates do not fit this device" | "ブローカーの証明書がこの端末に合いません";

    // ssh
    NoSsh: "the OpenSSH client could not be started" | "OpenSSH クライアントを起動できません";
    NoSshTodo: "install it: apt-get install openssh-client" | "インストールしてください: apt-get install openssh-client";

    // put
    Sending: "{name}: {done} of {size} sent" | "{name}: {size} 中 {done} を送信";
    Stored: "{name}: stored as {object}, {size} bytes in the enclave, root {root}" | "{name}: {object} として保管しました（{size} バイト、ルート {root}）";
    SizeDiffers: "{name}: the enclave holds {stored} bytes, the file has {size}" | "{name}: 保管されたのは {stored} バイト、ファイルは {size} バイトです";
    SizeDiffersTodo: "was the file being written? Send it again under another name" | "ファイルが書き込み中でなかったか確認し、別の名前で送り直してください";
    UploadBroken: "{name}: the transfer ended before the enclave had stored the file" | "{name}: 保管が完了する前に転送が終了しました";
    UploadBrokenTodo: "send it again: nothing of it was kept" | "もう一度送信してください。途中のデータは保持されていません";
    CannotEncrypt: "{name}: could not be encrypted" | "{name}: 暗号化できません";
    OneName: "--name goes with one file only" | "--name は一つのファイルにだけ指定できます";
    NotAFile: "{path} is not a file" | "{path} は通常のファイルではありません";
    NoFileName: "{path}: its name cannot be used in a dataset" | "{path}: この名前はデータセットで使えません";
    NoFileNameTodo: "give it one: --name NAME" | "--name 名前 を指定してください";

    // records
    Created: "{what} created" | "{what} を作成しました";
    Added: "{person} is now {role} in {study}" | "{person} は {study} の {role} になりました";
    Granted: "{grant}: {study} may use {dataset} until {until}" | "{grant}: {study} は {until} まで {dataset} を利用できます";
    Channels: "{study} allows: {open}; it refuses: {shut}" | "{study} で許可: {open}、拒否: {shut}";
    ChannelsEnded: "{count} session(s) that rested on what is refused now were ended" | "拒否に変わった操作によるセッション {count} 件を終了しました";
    Limits: "{study} gives each workspace {cpus} processors, {memory} of memory, {disk} of disk and {processes} processes, and stops it after {idle} without anybody in it; each person has at most {workspaces} workspaces, and {sessions} sessions at once"
        | "{study} の上限: ワークスペースごとに CPU {cpus}、メモリー {memory}、ディスク {disk}、プロセス {processes}。無人のまま {idle} で停止。利用者ごとにワークスペース {workspaces}、同時セッション {sessions}";
    Stopped: "{workspace} is stopped" | "{workspace} を停止しました";
    StopsLater: "{workspace} is not stopped yet: its host {agent} does not answer, and is told when it does" | "{workspace} はまだ停止していません。ホスト {agent} の応答後に停止します";
    Resumed: "{workspace} of {study} may run again; it starts when it is entered" | "{study} の {workspace} を再開できます。接続すると起動します";
    WorkspaceRemoved: "{workspace} of {study} is given up, with its home" | "{study} の {workspace} をホームごと廃止しました";
    Draining: "{what} takes nothing new; those who are in are told to finish" | "{what} は新規の受付を停止し、利用中の人に終了を案内しました";
    BackInService: "{what} is in service again" | "{what} は再び稼働中です";
    Revoked: "{grant} revoked; sessions that rested on it are ended" | "{grant} を取り消し、これによるセッションを終了しました";
    LetIn: "{person} may come in again" | "{person} のロックを解除しました";
    DecoyAdded: "{decoy}: touching it is a finding from now on" | "{decoy}: 以後、触れれば検知されます";
    StateAccepted: "the state of {process} is accepted; `sekisho diagnostics` shows it in a moment" | "{process} の現在の状態を承認しました。まもなく `sekisho diagnostics` に反映されます";
    DecoyRemoved: "{decoy} is an ordinary thing again" | "{decoy} をおとりから外しました";
    NoDecoyKey: "the public key {path} cannot be read" | "公開鍵 {path} を読めません";
    RulesGood: "{rules} rules of {files} files can be used, beside {builtin} that Sekisho comes with (set {set})"
        | "{files} 個のファイルの規則 {rules} 件は使用できます（ほかに標準の規則 {builtin} 件、セット {set}）";
    RulesBad: "the rules would be refused" | "この規則は受け付けられません";
    RulesBadTodo: "mend that file; a node that runs keeps the rules it has" | "ファイルを修正してください。稼働中のノードは現在の規則を使い続けます";
    NoRules: "there is no folder {folder}" | "フォルダー {folder} がありません";
    LockedOut: "{person} is locked out; their sessions are ended" | "{person} をロックし、セッションを終了しました";
    TokenMade: "one-time token for {subject} (hand it over by a safe way; it is shown only now):" | "{subject} 用のワンタイムトークン（安全な方法で渡してください。表示は今回限りです）:";
    TokenUse: "they run: sekisho login --api {api} --person {name} --token TOKEN" | "相手の操作: sekisho login --api {api} --person {name} --token トークン";
    ServiceWritten: "certificate of {service} until {expires}: {folder}/cert.pem, key.pem, ca.pem" | "{service} の証明書（{expires} まで）: {folder}/cert.pem, key.pem, ca.pem";
    Nothing: "nothing there yet" | "まだ何もありません";
    BadUntil: "{text} is not a date like 2027-03-31 or 2027-03-31T15:00:00Z" | "{text} は 2027-03-31 や 2027-03-31T15:00:00Z の形の日時ではありません";

    // approvals
    Approved: "{id} is approved: {who} may do it until {until}, once: {what}" | "{id} を承認しました。{who} は {until} までに一度だけ実行できます: {what}";
    ApprovalRefused: "{id} is refused: {what}" | "{id} を却下しました: {what}";
    NoApprovals: "nothing waits for a second officer" | "承認待ちの操作はありません";
    NoMatters: "nothing takes a second officer here ([approvals] in the broker's config.toml)" | "二人目の承認を要する操作は設定されていません（ブローカーの config.toml の [approvals]）";
    Matters: "a second officer is taken by: {matters}" | "二人目の承認を要する操作: {matters}";

    // recordings
    Recording: "{study}: recording {mode}, of {what}; commands without a terminal: {commands}; output kept of each minute: {limit} MiB (0: all); the lead may see recordings: {lead}"
        | "{study}: 記録 {mode}、対象: {what}、端末なしのコマンド: {commands}、1 分あたりの出力の上限: {limit} MiB（0 は無制限）、研究責任者の閲覧: {lead}";
    RecordingShown: "what is shown" | "表示内容";
    RecordingAll: "what is shown and what is typed" | "表示内容と入力";
    Yes: "yes" | "はい";
    No: "no" | "いいえ";
    NoRecordings: "there is no such recording" | "該当する記録はありません";
    NotSearched: "{count} recording(s) could not be searched: ask for a shorter time, or see the broker's log" | "{count} 件の記録は検索できませんでした。期間を短くするか、ブローカーのログを確認してください";
    RecordingsFetched: "{count} recording(s) were had back from the vault for this" | "検索のため {count} 件の記録を保管庫から取得しました";
    HitAt: "  {at}  {line}" | "  {at}　{line}";
    HitsMore: "  … and {count} more" | "  … ほかに {count} 件";
    PlayNoTerminal: "this is no terminal to play a recording on" | "記録を再生できる端末ではありません";
    PlayNoTerminalTodo: "add --text, --out FILE.html or --cast FILE.cast" | "--text、--out ファイル.html、--cast ファイル.cast のいずれかを付けてください";
    PlayTerminal: "the terminal could not be used" | "端末を使用できません";
    PlayDamaged: "the recording is damaged" | "記録が壊れています";
    PlayWritten: "wrote {path}; it holds what was on somebody's screen: keep it safe" | "{path} を作成しました。画面の内容が含まれるため、厳重に扱ってください";
    PlayFetching: "from the vault" | "保管庫から取得";
    PlayFetched: "back from the vault: {done} of {size}" | "保管庫から取得: {size} 中 {done}";
    PlayBrokenOff: "the recording of {session} broke off on its way" | "{session} の記録の転送が途中で終了しました";
    PlayBrokenOffTodo: "it came from the vault: see whether enough backends answer (`sekisho --json audit kept`), and try again" | "保管庫からの転送でした。保管先が応答しているか確認し（`sekisho --json audit kept`）、もう一度実行してください";
    PlayNoKey: "{path} is no key of recordings: it is 64 hexadecimal digits, the broker's recordings.key" | "{path} は記録の鍵ではありません。64 桁の 16 進数（ブローカーの recordings.key）です";
    PlayNotOpened: "{path} could not be opened as a sealed recording" | "{path} を封印された記録として開けません";
    PlayUnsealed: "SHA-256 of this recording: {hash}; compare it with session_recorded in the audit log" | "この記録の SHA-256: {hash}。監査ログの session_recorded と照合してください";
    PlayCutOff: "it has no end: the session was interrupted, or the file was cut off" | "末尾がありません。セッションが中断されたか、ファイルが途中で切れています";
    PageHeading: "Recording of a session" | "セッションの記録";
    PageSession: "Session" | "セッション";
    PageBegun: "Begun" | "開始";
    PageCommand: "Command" | "コマンド";
    PageHash: "SHA-256 in the audit log" | "監査ログの SHA-256";
    PageKeys: "Keys: space plays and pauses, ← and → seek, . steps, < and > change the speed, f fills the screen." | "キー操作: スペースで再生と一時停止、← → で移動、. でコマ送り、< > で速度変更、f で全画面。";
    PageNote: "This page needs no network and holds what was on somebody's screen: keep it safe." | "このページはネットワークを使いません。画面の内容が含まれるため、厳重に扱ってください。";

    // sessions
    Supervision: "{study}: people are told that they are watched: {told}; who may type in another's session: {join}; sessions take a second person: {moderated}"
        | "{study}: 監視の通知: {told}、他人のセッションへの入力: {join}、立会いを必要とする: {moderated}";
    NoSessions: "no session goes on" | "進行中のセッションはありません";
    SessionSaid: "said" | "伝えました";
    SessionUnsaid: "it is on record, but the terminal did not take it" | "記録しましたが、端末には表示できませんでした";
    SessionKilled: "{session} was ended" | "{session} を終了しました";

    // audit
    LogGood: "the log is whole: {entries} entries, root {root}" | "監査ログは完全です: {entries} 件、ルート {root}";
    LogSigned: "its checkpoint covers {size} entries; {bytes} bytes were read; signed by {key}" | "チェックポイントは {size} 件を対象とし、{bytes} バイトを検査しました。署名鍵: {key}";
    LogKeyBeside: "the key was taken from the folder itself: compare it with the copy you keep (--key)" | "鍵は同じフォルダーのものです。保管している写しと比べてください（--key）";
    LogWitnessed: "the witness {witness} has signed the first {size} entries, at {at}" | "証人 {witness} は先頭 {size} 件に署名しています（{at}）";
    LogWitnessUnknown: "a checkpoint over the first {size} entries lies there as signed by a witness, and the log continues it; the signature of the witness was not checked: give its key (--witness-key)" | "先頭 {size} 件のチェックポイントが証人署名済みとして保存されており、ログはその続きです。証人の署名は検証していません。鍵を指定してください（--witness-key）";
    LogUnwitnessed: "no witness has signed anything here: that the folder was not set back to an older copy of itself is not shown" | "証人の署名がありません。フォルダーが古い写しに戻されていないことは確認できません";
    WitnessKeyTodo: "--witness-key takes a line name+hash+key, or a file with one, such as the witness's key.pub" | "--witness-key には name+hash+key の行、またはその行を含むファイル（証人の key.pub など）を指定してください";
    LogMoved: "entries {first} to {last} are in the vault and were not looked at: `sekisho audit fetch` has them back" | "{first}〜{last} 番は秘密分散で保管され、ここにはありません。`sekisho audit fetch` で取り戻せます";
    LogRemoved: "{removed} entries are in the vault and not here: their hashes were checked, they themselves were not (`sekisho audit fetch`, then --kept)" | "{removed} 件は秘密分散で保管され、ここにはありません。ハッシュのみ検証しました（`sekisho audit fetch` の後 --kept を指定してください）";
    LogFetchedChecked: "{fetched} entries were taken from what was fetched from the vault" | "{fetched} 件は保管庫から取り戻したもので検証しました";
    LogKept: "entries below {kept} are kept as secret shares, {waiting} wait; entries below {local} may be in the vault alone" | "{kept} 番より前は秘密分散で保管済み、{waiting} 件が待機中。{local} 番より前は保管庫だけにある場合があります";
    LogFetched: "entries {first} to {last} are back, from {object}, and are those of the log" | "{first}〜{last} 番を {object} から取り戻し、監査ログのものと確認しました";
    LogUnpacked: "entries {first} to {last} in {path} are those of the log" | "{path} の {first}〜{last} 番は監査ログのものです";
    LogFetchedTodo: "with --kept {path}, `sekisho audit verify`, `search`, `tail` and `proof` take them with the rest of the log" | "`sekisho audit verify`・`search`・`tail`・`proof` に --kept {path} を付けると、監査ログの残りと合わせて扱われます";
    LogNotOverIt: "{path} is the folder of a log itself: name another, and read both with --kept" | "{path} は監査ログ自身のフォルダーです。別のフォルダーを指定し、--kept で合わせて読んでください";
    LogNotKept: "entry {index} is not in the vault (yet)" | "{index} 番は（まだ）保管庫にありません";
    LogNotASegment: "{path} is not a part of this log" | "{path} はこの監査ログの一部ではありません";
    LogBrokenOff: "{object} did not come whole" | "{object} を最後まで受け取れませんでした";
    BadEntries: "--to names an entry before --from" | "--to が --from より前の番号です";
    LogSearched: "{found} of {read} entries fit" | "{read} 件中 {found} 件が該当しました";
    LogBad: "the log in {path} is not what was signed" | "{path} の監査ログは署名されたものと一致しません";
    LogBadTodo: "keep a copy of the folder untouched, and tell the security staff" | "フォルダーの写しを変更せずに保存し、セキュリティ担当に連絡してください";
    NoProof: "no proof can be given for entry {index}" | "{index} 番の証明を作成できません";

    // status
    Healthy: "the broker at {at} is well" | "ブローカー {at} は正常です";
    Unhealthy: "the broker at {at} runs, but not everything is well" | "ブローカー {at} は動作していますが、異常があります";

    // up
    UpStarting: "starting in {dir}" | "{dir} で起動します";
    UpMade: "wrote {path}" | "{path} を作成しました";
    UpReady: "{room} ready: {line}" | "{room} 準備完了: {line}";
    UpServing: "serving" | "稼働中";
    UpExited: "{room} ended ({how}); its log: {log}" | "{room} が終了しました（{how}）。ログ: {log}";
    UpAgain: "{room} is started again in {secs} s" | "{room} を {secs} 秒後に再起動します";
    UpLate: "{room} was not ready after {secs} s; its log: {log}" | "{room} は {secs} 秒以内に準備できませんでした。ログ: {log}";
    UpStopping: "stopping" | "停止します";
    UpKilled: "{room} did not stop in time and was killed" | "{room} は時間内に停止しなかったため強制終了しました";
    UpStopped: "stopped" | "停止しました";
    UpFailed: "the node could not be started: {room} failed" | "ノードを起動できません: {room} が失敗しました";
    UpFailedTodo: "read its log: {log}" | "ログを確認してください: {log}";
    UpRunning: "another `sekisho up` runs on {dir}" | "{dir} では別の `sekisho up` が動作しています";
    UpRunningTodo: "stop it first, or choose another --dir" | "先にそれを停止するか、別の --dir を指定してください";
    UpLeftover: "ended a {room} that a killed `sekisho up` left behind (process {pid})" | "強制終了された `sekisho up` が残した {room}（プロセス {pid}）を終了しました";
    UpNoProgram: "{path} is missing" | "{path} がありません";
    UpNoProgramTodo: "build all programs (cargo build --workspace --bins) and keep them in one folder" | "すべてのプログラムをビルドし（cargo build --workspace --bins）、同じフォルダーに置いてください";
    UpNoUser: "there is no user {user} on this machine" | "このマシンにユーザー {user} がありません";
    UpNoUserTodo: "run infra/setup, or choose one with --user" | "infra/setup を実行するか、--user で指定してください";
    UpNotRoot: "not started as root: workspaces cannot be run; broker and signer keep your user" | "root ではないため、ワークスペースは起動できません。ブローカーと署名プロセスは現在のユーザーで動作します";
    UpToken: "no first token could be made" | "最初のトークンを作成できません";
    UpFewBackends: "{n} backends cannot hold shares of which {k} are needed" | "{n} 個の保管先では、{k} 個を必要とする分散はできません";
    UpFewBackendsTodo: "name at least {k} with --backend NAME=FOLDER, k at least 2" | "--backend 名前=フォルダー を {k} 個以上指定してください（k は 2 以上）";
    UpFixed: "{path} is there already: {options} left as they are" | "{path} は既にあるため、{options} は変更しません";
    UpTry: "Try, in another terminal:" | "別の端末で試してください:";
    UpFirst: "the first person, {person}, may do everything in the programme:" | "最初の利用者 {person} は事業の全権限を持ちます:";
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
    fn japanese_is_japanese_except_for_commands() {
        let same: Vec<_> = Key::ALL.iter().filter(|k| k.text(Lang::Ja).is_ascii()).collect();
        assert!(same.is_empty(), "{same:?}");
    }

    #[test]
    fn the_first_variable_that_is_set_decides() {
        let env = |pairs: &'static [(&'static str, &'static str)]| {
            Lang::from_env(move |name| pairs.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned()))
        };
        assert_eq!(env(&[("LANG", "ja_JP.UTF-8")]), Lang::Ja);
        assert_eq!(env(&[("LANG", "ja_JP.UTF-8"), ("LC_ALL", "C")]), Lang::En);
        assert_eq!(env(&[("LANG", "C"), ("LC_ALL", ""), ("SEKISHO_LANG", "ja")]), Lang::Ja);
        assert_eq!(env(&[("LANG", "jam_JM")]), Lang::En);
        assert_eq!(env(&[]), Lang::En);
    }

    #[test]
    fn values_are_not_read_as_placeholders() {
        assert_eq!(fill("{a}-{b}-{c", &[("a", "{b}".to_owned()), ("b", "x".to_owned())]), "{b}-x-{c");
    }
}
