package checks

const root = "../.."
