#!/bin/sh
# Label words, calibration and demonstrations on SST-2, with few rows a class.
# Usage: bench/verbalizers.sh FOLDER_OF_SST2 OUT_FOLDER [ROWS_A_CLASS] [WORDS_FILE]
set -eu
data=$1 out=$2 few=${3:-16} words=${4:-}
mkdir -p "$out"
plain='{text} It was'
labels='negative=terrible positive=great'

with() { # NAME FLAGS ...
    name=$1
    shift
    for calibration in none contextual pmi; do
        foreword compare --data "$data/train.jsonl" --test "$data/test.jsonl" --test-rows 400 \
            --per-label "$few" --seeds 3 --calibration "$calibration" \
            --out "$out/$name-$calibration-$few.jsonl" "$@"
    done
}
# shellcheck disable=SC2086
{
    with manual --methods zero-shot,demonstrations,soft --template "$plain" --labels $labels
    with search --methods zero-shot,soft --template "$plain" --verbalizer search
    with autoprompt --methods zero-shot,soft --template "$plain" --verbalizer autoprompt
    with words --methods soft+head --head-start words --template "$plain" --labels $labels
    with prototypes --methods head,soft+head --head-start prototypes --template "$plain" --labels $labels
    with balanced --methods zero-shot,soft --template "{demos:4}$plain" --labels $labels
    with nearest --methods zero-shot,soft --template "{demos:4}$plain" --demos nearest --labels $labels
    if [ -n "$words" ]; then
        with expansion --methods zero-shot,soft --template "$plain" --labels "@$words"
        with refined --methods zero-shot,soft --template "$plain" --labels "@$words" --verbalizer refine
    fi
}
