package rotating_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"log"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	sallyport "github.com/sallyport/sallyport/clients/go"
	"github.com/sallyport/sallyport/clients/go/rotating"
)

// A service works with PostgreSQL as somebody who exists for the next quarter of an hour
// and whom nobody else can be. The example runs against a real Vault and a real
// PostgreSQL.
func Example() {
	ctx := context.Background()
	client, err := sallyport.Dial(ctx, gateway.GRPC, sallyport.Options{
		Credentials: sallyport.Files{Certificate: gateway.Workload.Cert, Key: gateway.Workload.Key, CA: gateway.CA},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	kept, err := client.Keep(ctx, "tenants/demo/secretRoles/orders-db", sallyport.KeepOptions{
		OnError: func(err error) { log.Print(err) },
	})
	if err != nil {
		log.Fatal(err)
	}
	defer kept.Close(ctx) // revokes the login

	base, err := pgx.ParseConfig(postgresURL)
	if err != nil {
		log.Fatal(err)
	}
	db := sql.OpenDB(&rotating.Connector{Source: kept, Open: func(user string, password []byte) (driver.Connector, error) {
		config := base.Copy()
		config.User, config.Password = user, string(password)
		return stdlib.GetConnector(*config), nil
	}})
	defer db.Close()
	db.SetConnMaxIdleTime(time.Minute) // idle connections of an old login go by themselves

	var user string
	if err := db.QueryRowContext(ctx, "select current_user").Scan(&user); err != nil {
		log.Fatal(err)
	}
	fmt.Println("Vault made this one up:", strings.HasPrefix(user, "v-"))
	// Output: Vault made this one up: true
}
