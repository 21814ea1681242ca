"""libssh against a study, by its Python binding: commands, a terminal, a port of the workspace.

usage: libssh.py HOST PORT USER KEY CERTIFICATE
Prints one line for each thing that held; anything else is an exception.
"""

import hashlib
import os
import sys

from ssh import options
from ssh.key import copy_cert_to_privkey, import_cert_file, import_privkey_file
from ssh.session import Session

host, port, user, key, certificate = sys.argv[1:6]


def held(what):
    print("held:", what, flush=True)


def read_all(channel, stderr=False):
    data = b""
    while True:
        size, piece = channel.read(65536, is_stderr=stderr)
        if size <= 0:
            return data
        data += piece


session = Session()
session.options_set(options.HOST, host)
session.options_set_port(int(port))
session.options_set(options.USER, user)
session.connect()
private = import_privkey_file(key)
copy_cert_to_privkey(import_cert_file(certificate), private)
session.userauth_publickey(private)

noise = os.urandom(3 << 20)
channel = session.channel_new()
channel.open_session()
channel.request_exec("sha256sum; exit 7")
for at in range(0, len(noise), 32768):
    piece = noise[at : at + 32768]
    while piece:
        piece = piece[channel.write(piece)[1] :]
channel.send_eof()
digest = read_all(channel).split()[0].decode()
assert digest == hashlib.sha256(noise).hexdigest(), digest
assert channel.get_exit_status() == 7
channel.close()
held("libssh: binary input and the exit status")

channel = session.channel_new()
channel.open_session()
channel.request_pty_size("xterm", 100, 40)
channel.request_shell()
channel.change_pty_size(132, 43)
channel.write("stty size; echo 'ゲノム'解析; exit\n".encode())
text = read_all(channel).decode()
assert "43 132" in text and "ゲノム解析" in text, text
channel.close()
held("libssh: a terminal that is resized, with Japanese")
