# Shortens a record of memory calls by strace to the form that README.md describes.
#
#   awk -f from-strace.awk < record > NAME.txt
#
# Input: one finished call a line, `PID call(args) = result`, and `PID exit`. A call or a flag that the form has
# no word for ends the conversion with status 1.

function fail(why) {
    print "line " NR ": " why ": " $0 > "/dev/stderr"
    failed = 1
    exit 1
}

# Every address and file offset in a record is a multiple of the page: its page number is all digits but three.
function page(word) {
    if (word == "0") return "0"
    if (word !~ /^0x[0-9a-f]+000$/) fail("not the address of a page: " word)
    return substr(word, 3, length(word) - 5)
}

function rights(word) {
    gsub(/PROT_NONE/, "-", word)
    gsub(/PROT_READ/, "r", word)
    gsub(/PROT_WRITE/, "w", word)
    gsub(/PROT_EXEC/, "x", word)
    gsub(/\|/, "", word)
    if (word !~ /^(-|r?w?x?)$/) fail("unknown rights")
    return word
}

# The kernel ignores MAP_DENYWRITE.
function kind(word) {
    gsub(/MAP_DENYWRITE/, "", word)
    gsub(/MAP_SHARED/, "s", word)
    gsub(/MAP_PRIVATE/, "p", word)
    gsub(/MAP_FIXED/, "f", word)
    gsub(/MAP_ANONYMOUS/, "a", word)
    gsub(/MAP_NORESERVE/, "n", word)
    gsub(/MAP_STACK/, "t", word)
    gsub(/\|/, "", word)
    if (word !~ /^[sp]f?a?n?t?$/) fail("unknown flags of a map")
    return word
}

function creation(flags) {
    if (flags ~ /CLONE_THREAD/) return "thread"
    if (flags ~ /CLONE_VFORK/) return "vfork"
    if (flags ~ /CLONE_VM/) fail("a process that shares its map for good")
    return "fork"
}

function shortened(name, result,    words, text) {
    if (result ~ /^-1 /) {
        split(result, words, " ")
        return (name == "execve" ? "exec" : name == "mmap" ? "map" : name) " ! " words[2]
    }
    if (name == "execve") return "exec"
    if (name == "brk") return "brk " page(result)
    if (name == "mmap") {
        text = "map " page(result) " " arg[2] " " rights(arg[3]) " " kind(arg[4])
        if (arg[4] !~ /MAP_FIXED/ && arg[1] == result) text = text "h"
        return arg[4] ~ /ANONYMOUS/ ? text : text " " arg[5] " " page(arg[6])
    }
    if (name == "munmap") return "unmap " page(arg[1]) " " arg[2]
    if (name == "mprotect") return "protect " page(arg[1]) " " arg[2] " " rights(arg[3])
    if (name == "mremap") {
        if (arg[4] != "MREMAP_MAYMOVE") fail("unknown flags of a move")
        return "remap " page(arg[1]) " " arg[2] " " arg[3] " " page(result)
    }
    if (name == "madvise") return "advise " page(arg[1]) " " arg[2] " " tolower(substr(arg[3], 6))
    if (name == "shmat") return "shmat " arg[1] " " page(result)
    if (name == "shmdt") return "shmdt " page(arg[1])
    if (name == "vfork") return "vfork " result
    if (name == "clone" || name == "clone3") return creation($0) " " result
    fail("unknown call")
}

{
    line = $0
    sub(/^[0-9]+ /, "", line)
    if (line == "exit") {
        text = "exit"
    } else {
        open = index(line, "(")
        match(line, /\) *= [^=]*$/)
        if (open == 0 || RSTART == 0) fail("not a call with a result")
        result = substr(line, RSTART, RLENGTH)
        sub(/^\) *= /, "", result)
        arguments = substr(line, open + 1, RSTART - open - 1)
        count = split(arguments, arg, /, /)
        text = shortened(substr(line, 1, open - 1), result)
    }
    print ($1 == current ? text : $1 " " text)
    current = $1
}

END { exit failed }
