# What the scripts of this folder share: tests/e2e/lib.sh, and one cache for all, as compiling is most of their time.
# shellcheck shell=bash
cache=${XDG_CACHE_HOME:-}
. tests/e2e/lib.sh
[ -z "$cache" ] || export XDG_CACHE_HOME=$cache
MODELS=$(for f in examples/fables.gguf tests/models/*.gguf ${MODELS:+"$MODELS"/*.gguf}; do
        case $f in *.shape.gguf | *'*'*) ;; *) echo "$f" ;; esac
done)
