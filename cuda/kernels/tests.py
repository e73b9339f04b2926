"""Of the messages of `cargo test --no-run --message-format=json`: name and executable of each test file of this crate."""
import json, pathlib, sys

tests = pathlib.Path(__file__).resolve().parent.parent / "tests"
for line in sys.stdin:
    message = json.loads(line)
    if message.get("executable") and pathlib.Path(message["target"]["src_path"]).resolve().parent == tests:
        print(message["target"]["name"], message["executable"])
