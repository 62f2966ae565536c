"""Load on mdserver from hostile guests: load.py KIND '{"sources": …}'

Prints what came back as one line of JSON when the seconds are over, or when the work is done. With
"stay", it then keeps its connections open until it is killed. Python, because Node can neither
reset a connection with SO_LINGER nor choose a small SO_RCVBUF.
"""
import json
import os
import re
import resource
import socket
import struct
import sys
import threading
import time

kind, settings = sys.argv[1], json.loads(sys.argv[2])
sources = settings["sources"]
target = (settings.get("host", "169.254.169.254"), settings.get("port", 80))
connections = settings.get("connections", 1)
# What each connection sends: the text, as often as that, so many bytes, and the end.
message = settings.get("request", "").encode() * settings.get("times", 1)
message += b"x" * settings.get("body", 0) + settings.get("tail", "").encode()
deadline = time.monotonic() + settings["seconds"]

hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
if "uid" in settings:
    os.setuid(settings["uid"])

lock = threading.Lock()
counts = {"connected": 0, "refused": 0, "statuses": {}, "canaries": {}}
opened = []


def over():
    return time.monotonic() >= deadline


def count(name, number=1):
    with lock:
        counts[name] += number


def connect(index, small=False):
    """A connection; None if it was refused. With `small`, one that takes few bytes at a time."""
    client = socket.socket()
    if small:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    try:
        client.bind((sources[index % len(sources)], 0))
        client.settimeout(max(0.1, deadline - time.monotonic()))
        client.connect(target)
    except OSError:
        client.close()
        count("refused")
        return None
    count("connected")
    return client


def count_answers(before, data):
    """Counts the statuses and the canaries in what has come, after what came before."""
    with lock:
        for found in re.finditer(rb"HTTP/1\.1 (\d{3})|canary-of-([a-z]+)\b", before + data):
            if found.end() > len(before):
                counted = counts["statuses" if found[1] else "canaries"]
                text = (found[1] or found[2]).decode()
                counted[text] = counted.get(text, 0) + 1
    return (before + data)[-40:]


def read_all(client):
    """Reads until the connection ends."""
    before = b""
    try:
        while data := client.recv(1 << 18):
            before = count_answers(before, data)
    except OSError:
        pass


def hold(small):
    """Connections that send the message and then neither send nor read."""
    for index in range(connections):
        if over():
            return
        client = connect(index, small)
        if client is None:
            continue
        opened.append(client)
        client.settimeout(0.05 if small else 5)
        try:
            client.sendall(message)
        except OSError:
            pass
    while not over():
        time.sleep(0.05)


def drip():
    """Connections that send a byte of the message every half second."""
    clients = [client for index in range(connections) if (client := connect(index))]
    opened.extend(clients)
    for byte in message:
        if over():
            return
        for client in clients:
            try:
                client.send(bytes([byte]))
            except OSError:
                pass
        time.sleep(0.5)


def flood(index):
    """Connections that send the message again and again, and read; a new one for each that ends."""
    while not over():
        client = connect(index)
        if client is None:
            time.sleep(0.01)
            continue
        reader = threading.Thread(target=read_all, args=(client,), daemon=True)
        reader.start()
        try:
            while not over() and reader.is_alive():
                client.sendall(message)
        except OSError:
            pass
        client.close()


def storm(index):
    """Connections that send one request at a time, each of them different."""
    number = 0
    client = None
    while not over():
        client = client or connect(index)
        if client is None:
            time.sleep(0.01)
            continue
        number += 1
        try:
            client.sendall(message.replace(b"@NUMBER@", b"%04d%06d" % (index, number)))
            answer = client.recv(65536)
        except OSError:
            answer = b""
        count_answers(b"", answer)
        if answer == b"" or b"connection: close" in answer.lower():
            client.close()
            client = None


def reset(index):
    """Connections that send the message, if there is one, and are reset at once."""
    while not over():
        client = connect(index)
        if client is None:
            continue
        try:
            client.sendall(message)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        except OSError:
            pass
        client.close()


def in_threads(work):
    threads = [
        threading.Thread(target=work, args=(index,), daemon=True) for index in range(connections)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0, deadline - time.monotonic()) + 1)


if kind == "hold":
    hold(small=False)
elif kind == "hold-unread":
    hold(small=True)
elif kind == "drip":
    drip()
elif kind == "flood":
    in_threads(flood)
elif kind == "storm":
    in_threads(storm)
elif kind == "reset":
    in_threads(reset)
else:
    sys.exit(f"unknown kind of load: {kind}")

print(json.dumps(counts), flush=True)
if settings.get("stay"):
    time.sleep(180)
# Threads may still wait for answers.
os._exit(0)
