# Whether a file is one JSON value (RFC 8259): `awk -f json.awk FILE` says what is wrong, and fails.
# Strings and numbers become one character each, then containers too, from the inside, until one is left.
{ text = text $0 "\n" }
END {
        if (text ~ /[\001-\010\013\014\016-\037]/) wrong("a control character")
        gsub(/"([^"\\\n]|\\(["\\\/bfnrt]|u[0-9a-fA-F][0-9a-fA-F][0-9a-fA-F][0-9a-fA-F]))*"/, "\001", text)
        gsub(/-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?|true|false|null/, "\002", text)
        gsub(/[ \t\r\n]+/, "", text)
        value = "[\001\002\003]"
        container = "\\[(" value "(," value ")*)?\\]|\\{(\001:" value "(,\001:" value ")*)?\\}"
        while (gsub(container, "\003", text) > 0)
                ;
        if (text !~ "^" value "$") wrong("left over: " substr(text, 1, 200))
}
function wrong(what) {
        print what
        exit 1
}
