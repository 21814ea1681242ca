// Checks a log with nothing of ours: Go's own golang.org/x/mod/sumdb/{note,tlog} read the signature,
// the tiles and the entries. Arguments: the log's folder, its public key, an older checkpoint, and
// a tlog-proof.
package main

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

func main() {
	if err := check(os.Args[1], os.Args[2], os.Args[3], os.Args[4]); err != nil {
		fmt.Println("refused:", err)
		os.Exit(1)
	}
}

func check(dir, key, olderPath, proofPath string) error {
	verifier, err := note.NewVerifier(key)
	if err != nil {
		return err
	}
	latest, err := checkpoint(filepath.Join(dir, "checkpoint"), verifier)
	if err != nil {
		return err
	}
	older, err := checkpoint(olderPath, verifier)
	if err != nil {
		return err
	}
	// The reader compares every tile it gives out with the root.
	hashes := tlog.TileHashReader(latest, tiles(dir))
	proof, err := tlog.ProveTree(latest.N, older.N, hashes)
	if err != nil {
		return err
	}
	if err := tlog.CheckTree(proof, latest.N, latest.Hash, older.N, older.Hash); err != nil {
		return fmt.Errorf("not a continuation of the older checkpoint: %w", err)
	}
	var index int64
	for index < latest.N {
		entries, err := bundle(dir, index/256, latest.N)
		if err != nil {
			return err
		}
		for _, entry := range entries {
			proof, err := tlog.ProveRecord(latest.N, index, hashes)
			if err != nil {
				return err
			}
			err = tlog.CheckRecord(proof, latest.N, latest.Hash, index, tlog.RecordHash(entry))
			if err != nil {
				return fmt.Errorf("record %d: %w", index, err)
			}
			index++
		}
	}
	if err := checkProof(proofPath, verifier); err != nil {
		return fmt.Errorf("tlog-proof: %w", err)
	}
	fmt.Printf("ok size=%d older=%d records=%d\n", latest.N, older.N, index)
	return nil
}

// checkpoint verifies the signature and reads the three lines.
func checkpoint(path string, verifier note.Verifier) (tlog.Tree, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return tlog.Tree{}, err
	}
	return openCheckpoint(text, verifier)
}

func openCheckpoint(text []byte, verifier note.Verifier) (tlog.Tree, error) {
	opened, err := note.Open(text, note.VerifierList(verifier))
	if err != nil {
		return tlog.Tree{}, err
	}
	lines := strings.Split(opened.Text, "\n")
	if len(lines) < 3 || lines[0] != verifier.Name() {
		return tlog.Tree{}, errors.New("not a checkpoint of this log")
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil {
		return tlog.Tree{}, err
	}
	root, err := tlog.ParseHash(lines[2])
	return tlog.Tree{N: size, Hash: root}, err
}

// tiles reads them from the layout of C2SP tlog-tiles, which leaves out the height.
type tiles string

func (dir tiles) Height() int { return 8 }

func (dir tiles) ReadTiles(wanted []tlog.Tile) ([][]byte, error) {
	var data [][]byte
	for _, tile := range wanted {
		bytes, err := os.ReadFile(filepath.Join(string(dir), strings.Replace(tile.Path(), "tile/8/", "tile/", 1)))
		if err != nil {
			return nil, err
		}
		data = append(data, bytes)
	}
	return data, nil
}

func (dir tiles) SaveTiles([]tlog.Tile, [][]byte) {}

func bundle(dir string, n, size int64) ([][]byte, error) {
	width := size - n*256
	if width > 256 {
		width = 256
	}
	path := tlog.Tile{H: 8, L: 0, N: n, W: int(width)}.Path()
	bytes, err := os.ReadFile(filepath.Join(dir, strings.Replace(path, "tile/8/0/", "tile/entries/", 1)))
	var entries [][]byte
	for len(bytes) >= 2 {
		end := 2 + int(binary.BigEndian.Uint16(bytes))
		if end > len(bytes) {
			return nil, errors.New("a bundle breaks off")
		}
		entries = append(entries, bytes[2:end])
		bytes = bytes[end:]
	}
	if err == nil && int64(len(entries)) != width {
		err = errors.New("a bundle has too few entries")
	}
	return entries, err
}

// checkProof verifies a C2SP tlog-proof@v1 whose extra line carries the entry.
func checkProof(path string, verifier note.Verifier) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	head, signed, _ := strings.Cut(string(text), "\n\n")
	lines := strings.Split(head, "\n")
	if len(lines) < 3 || lines[0] != "c2sp.org/tlog-proof@v1" {
		return errors.New("not of this form")
	}
	entry, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(lines[1], "extra "))
	if err != nil {
		return err
	}
	index, err := strconv.ParseInt(strings.TrimPrefix(lines[2], "index "), 10, 64)
	if err != nil {
		return err
	}
	var proof tlog.RecordProof
	for _, line := range lines[3:] {
		hash, err := tlog.ParseHash(line)
		if err != nil {
			return err
		}
		proof = append(proof, hash)
	}
	tree, err := openCheckpoint([]byte(signed), verifier)
	if err != nil {
		return err
	}
	return tlog.CheckRecord(proof, tree.N, tree.Hash, index, tlog.RecordHash(entry))
}
